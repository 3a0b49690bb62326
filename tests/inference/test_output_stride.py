"""A network at another output stride: the same function, sampled more or less densely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables
from selection import slow_unless

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import Predictor
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.models import create_model, list_models
from deeplab_jax.models.output_stride import at_output_stride

SMALL = {"backbone": "mobilenet_v2", "depth_multiplier": 0.35, "num_classes": 3}
POOLED = SMALL | {"aspp_channels": 4}
PLAIN = POOLED | {"image_pooling": "none"}
NETWORKS = {
    "concatenated": ("deeplab_v3", PLAIN | {"head": "aspp"}),
    "other rates": ("deeplab_v3", PLAIN | {"head": "aspp", "atrous_rates": (4, 2)}),
    "summed": ("deeplab_v2", SMALL | {"atrous_rates": (2, 4)}),
    "decoder": ("deeplab_v3plus", PLAIN | {"separable": True, "atrous_rates": (2, 6)}),
    "large field of view": ("deeplab_v1", SMALL | {"fc_channels": 4}),
}


def make(name, **changes):
    architecture, keywords = NETWORKS[name]
    model = create_model(architecture, **(keywords | changes))
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.uint8)
    return model, random_variables(model, image)


def scores(model, variables, image):
    apply = jax.jit(lambda v, x: model.apply(v, x, endpoints=True)[1]["scores"])
    return np.asarray(apply(variables, image))


@pytest.mark.parametrize("name", ["other rates", pytest.param("summed", marks=pytest.mark.slow)])
def test_a_denser_map_holds_the_trained_one(name):
    model, variables = make(name, output_stride=16)
    image = np.random.default_rng(1).integers(0, 256, (1, 97, 129, 3), dtype=np.uint8)
    expected = scores(model, variables, image)
    dense = at_output_stride(model, variables, 8)
    found = scores(*dense, image)
    assert found.shape == (1, 13, 17, 3)
    np.testing.assert_allclose(found[:, ::2, ::2], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "output_stride"), [*((name, 8) for name in NETWORKS), ("summed", 4), ("decoder", 32)]
)
def test_changing_the_stride_back_restores_the_network(name, output_stride):
    model, variables = make(name, output_stride=16)
    moved, renamed = at_output_stride(model, variables, output_stride)
    ratio = 16 / output_stride
    rates = tuple(rate * ratio for rate in model.architecture.atrous_rates)
    assert moved.architecture.atrous_rates == rates
    back, restored = at_output_stride(moved, renamed, 16)
    assert back == model
    flat = jax.tree_util.tree_flatten_with_path(restored)[0]
    assert dict(flat).keys() == dict(jax.tree_util.tree_flatten_with_path(variables)[0]).keys()
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, restored, variables)))


@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
@pytest.mark.parametrize(
    "architecture",
    slow_unless(("deeplab_v2", "deeplab_v3plus").__contains__, list_models()),
)
def test_a_network_built_at_a_stride_is_that_of_evaluation(architecture, output_stride):
    keywords = {"backbone": "mobilenet_v2", "depth_multiplier": 0.1}
    published = create_model(architecture, **keywords)
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.uint8)
    shapes = jax.eval_shape(published.init, jax.random.key(0), image)
    if architecture == "deeplab_v2" and output_stride == 32:
        complaint = r"would be 1\.5, 3, 4\.5, 6; legal output strides: 4, 8, 16"
        with pytest.raises(DeepLabError, match=complaint):
            create_model(architecture, **keywords, output_stride=output_stride)
        with pytest.raises(DeepLabError, match=complaint):
            at_output_stride(published, shapes, output_stride)
        return
    built = create_model(architecture, **keywords, output_stride=output_stride)
    evaluated, variables = at_output_stride(published, shapes, output_stride)
    assert built == evaluated
    assert jax.eval_shape(built.init, jax.random.key(0), image).keys() == variables.keys()


def test_the_pooling_window_follows():
    model = create_model("deeplab_v3", **POOLED, image_pooling="crop")
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.uint8))
    assert model.architecture.pooling_window == (33, 33)
    assert at_output_stride(model, variables, 8)[0].architecture.pooling_window == (65, 65)


@pytest.mark.parametrize(
    ("changes", "output_stride", "complaint"),
    [
        ({}, 0, "output_stride=0 must be one of 4, 8, 16, 32"),
        ({}, -8, "output_stride=-8 must be one of 4, 8, 16, 32"),
        ({}, 64, "output_stride=64 must be one of 4, 8, 16, 32"),
        ({}, 12, "must be one of 4, 8, 16, 32"),
        ({"atrous_rates": (2, 3)}, 32, "would be 1, 1.5; legal output strides: 4, 8, 16"),
        ({"head": "dpc", "atrous_rates": ()}, 32, "legal output strides: 4, 8, 16"),
    ],
)
def test_impossible_output_strides_are_refused(changes, output_stride, complaint):
    model, variables = make("concatenated", output_stride=16, **changes)
    with pytest.raises(DeepLabError, match=complaint):
        at_output_stride(model, variables, output_stride)


def test_a_predictor_goes_back_to_the_trained_stride():
    model, variables = make("concatenated", output_stride=16)
    names, palette = ["a", "b", "c"], [(0, 0, 0)] * 3
    dense = Predictor(model, variables, names, palette, options=InferenceOptions(8))
    assert dense.model.architecture.atrous_rates == (12, 24, 36)
    assert dense.with_options(dense.options) is dense
    assert dense.with_options(InferenceOptions()).model == model
