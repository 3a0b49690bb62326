import functools
import itertools
import math

import jax
import numpy as np
import pytest
from compiling import run_once
from random_variables import random_variables

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.heads import ASPP, Decoder, ImagePooling, MultiScaleFeatures
from deeplab_jax.heads.aspp import average, pool_bins
from deeplab_jax.layers import Normalization
from deeplab_jax.models.receptive_field import flatten

NORMALIZATION = Normalization(decay=0.9, epsilon=1e-3)
FEATURES = np.random.default_rng(0).normal(size=(2, 5, 7, 6)).astype(np.float32)


def make_aspp(**changes):
    options = {
        "rates": (2, 3),
        "channels": 4,
        "image_pooling": True,
        "separable": False,
        "dropout_rate": 0.5,
        "normalization": NORMALIZATION,
    }
    return ASPP(**(options | changes))


def test_image_pooling_is_the_same_everywhere_and_sees_only_the_mean():
    module = ImagePooling(4, NORMALIZATION)
    variables = random_variables(module, FEATURES, train=False)
    flipped = FEATURES[:, ::-1, ::-1]

    def both(variables, one, other):
        return module.apply(variables, one, False), module.apply(variables, other, False)

    found, other = run_once(both, variables, FEATURES, flipped)
    assert found.shape == (2, 5, 7, 4)
    assert found.std() > 0.01
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1], found.shape))
    np.testing.assert_allclose(found, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_spatial_pyramid_bins_cover_the_map_whatever_its_size(bins):
    found = pool_bins(FEATURES, bins)
    height, width = FEATURES.shape[1:3]
    for row, column in itertools.product(range(bins), repeat=2):
        rows = slice(math.floor(row * height / bins), math.ceil((row + 1) * height / bins))
        columns = slice(math.floor(column * width / bins), math.ceil((column + 1) * width / bins))
        expected = FEATURES[:, rows, columns].max((1, 2))
        np.testing.assert_array_equal(found[:, row, column], expected)


@pytest.mark.parametrize("window", [(2, 3), (5, 7), (9, 3)])
def test_crop_pooling_averages_windows_that_fit_and_goes_back_to_the_map(window):
    found = average(FEATURES, window)
    rows, columns = min(window[0], 5), min(window[1], 7)
    expected = np.zeros((2, 6 - rows, 8 - columns, 6))
    for top, left in itertools.product(range(6 - rows), range(8 - columns)):
        part = FEATURES[:, top : top + rows, left : left + columns]
        expected[:, top, left] = part.mean((1, 2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_crop_pooling_averages_along_one_axis_at_a_time():
    """A window of 33×33 positions takes 66 additions, not 1,089."""
    program = flatten(jax.make_jaxpr(lambda maps: average(maps, (3, 4)))(FEATURES))
    pools = [each for each in program.operations if each.name.startswith("reduce_window")]
    assert [each.params["window_dimensions"] for each in pools] == [(1, 3, 1, 1), (1, 1, 4, 1)]


def test_image_pooling_refuses_to_train_on_a_batch_of_one():
    module = make_aspp()
    variables = random_variables(module, FEATURES, train=False)

    def shape(batch, train):
        apply = functools.partial(module.apply, train=train, mutable=["batch_stats"])
        return jax.eval_shape(apply, variables, FEATURES[:batch], rngs=jax.random.key(0))[0].shape

    with pytest.raises(
        DeepLabError,
        match=r"a batch of 1.*at least 2 images.*frozen_batch_norm=True.*image_pooling='none'",
    ):
        shape(batch=1, train=True)
    assert shape(batch=1, train=False) == (1, 5, 7, 4)
    assert shape(batch=2, train=True) == (2, 5, 7, 4)
    without = make_aspp(image_pooling=False)
    variables = random_variables(without, FEATURES, train=False)
    train = functools.partial(without.apply, train=True, mutable=["batch_stats"])
    jax.eval_shape(train, variables, FEATURES[:1], rngs=jax.random.key(0))


@pytest.mark.parametrize(
    ("changes", "branches"),
    [
        ({}, {"image_pooling", "pointwise", "rate_2", "rate_3"}),
        ({"image_pooling": False}, {"pointwise", "rate_2", "rate_3"}),
        ({"rates": ()}, {"image_pooling", "pointwise"}),
        ({"separable": True}, {"image_pooling", "pointwise", "rate_2", "rate_3"}),
    ],
)
def test_every_branch_reaches_the_projection(changes, branches):
    params = random_variables(make_aspp(**changes), FEATURES, train=False)["params"]
    assert set(params) == branches | {"projection"}
    assert params["projection"]["kernel"].shape == (1, 1, 4 * len(branches), 4)


def test_dropout_acts_in_training_alone():
    module = make_aspp(rates=(), image_pooling=False)
    variables = random_variables(module, FEATURES, train=False)

    def apply(variables, features, key):
        trained, _ = module.apply(
            variables, features, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return trained, module.apply(variables, features, train=False)

    (one, evaluated), (other, again) = (
        run_once(apply, variables, FEATURES, jax.random.key(seed)) for seed in (0, 1)
    )
    np.testing.assert_array_equal(evaluated, again)
    assert np.any(one != other)


def test_the_decoder_works_on_the_low_level_map():
    module = Decoder(
        low_level_channels=3,
        convolutions=((3, 8), (1, 5)),
        separable=False,
        normalization=NORMALIZATION,
    )
    low_level = np.zeros((2, 17, 25, 9), np.float32)
    variables = random_variables(module, FEATURES, low_level, train=False)
    kernels = {name: part["kernel"].shape for name, part in variables["params"].items()}
    assert kernels == {
        "low_level": (1, 1, 9, 3),
        "refine_1": (3, 3, 9, 8),
        "refine_2": (1, 1, 8, 5),
    }
    apply = functools.partial(module.apply, train=False)
    assert jax.eval_shape(apply, variables, FEATURES, low_level).shape == (2, 17, 25, 5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_multi_scale_features_have_the_size_of_the_features(align_corners):
    """At 65 pixels, the last map of ConvNeXt has 4×4 pixels, and a convolution returns 5×5."""
    module = MultiScaleFeatures((16,), align_corners)
    image = np.random.default_rng(1).normal(size=(1, 65, 65, 3)).astype(np.float32)
    smaller, equal = (np.zeros((1, side, side, 2), np.float32) for side in (4, 5))
    variables = random_variables(module, equal, [image], train=False)

    def both(variables, image):
        return [module.apply(variables, features, [image], False) for features in (smaller, equal)]

    found, full = run_once(both, variables, image)
    assert found.shape == (1, 4, 4, 2 + 128)
    expected = ops.resize_bilinear(full, (4, 4), align_corners=align_corners)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
