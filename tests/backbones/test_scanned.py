"""Units compiled as a loop give what they give one by one, under the same names."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from flax import linen as nn
from random_variables import random_variables

from deeplab_jax import ops
from deeplab_jax.backbones import ResidualUnit, find_backbone
from deeplab_jax.backbones.atrous import Unit
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import ConvNorm, Normalization, run_units
from deeplab_jax.models import create_model
from deeplab_jax.training.rematerialization import rematerialized

RATES = (1, 1, 1, 2, 2, 1, 1, 1)


class Chain(nn.Module):
    """Units that differ in their rate alone."""

    scan: bool

    @nn.compact
    def __call__(self, image, train):
        conv_norm = partial(ConvNorm, normalization=Normalization(0.9, 1e-3), dtype=jnp.float64)
        units = {
            f"block/unit_{n}": ResidualUnit(
                8, 4, (Unit(1, 1), Unit(1, rate), Unit(1, 1)), conv_norm, parent=None
            )
            for n, rate in enumerate(RATES, start=1)
        }
        return {
            name: (outputs, inner)
            for name, outputs, inner in run_units(self, units, image, train, scan=self.scan)
        }


class Repeated(nn.Module):
    """A chain that sees several images, one after the other, as those of several scales."""

    scan: bool
    architecture = None

    @nn.compact
    def __call__(self, *images, train):
        chain = Chain(self.scan, name="chain")
        return [chain(image, train) for image in images]


def training_pass(network, variables, image, inner):
    """Returns the gradients of parameters and image, the outputs and the new statistics."""

    def loss(params, image):
        outputs, changed = network.apply(
            variables | {"params": params}, *image, train=True, mutable=["batch_stats"]
        )
        total = sum(jnp.sin(3 * leaf).mean() for leaf in inner(outputs))
        return total, (outputs, changed)

    return run_once(jax.value_and_grad(loss, (0, 1), has_aux=True), variables["params"], image)


def assert_equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        other = np.asarray(dict(jax.tree_util.tree_leaves_with_path(found))[path])
        assert np.isfinite(leaf).all()
        scale = max(np.abs(leaf).max(), 1e-30)
        assert np.abs(other - leaf).max() <= 1e-12 * scale, jax.tree_util.keystr(path)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("rematerialize", ["none", pytest.param("units", marks=pytest.mark.slow)])
def test_a_loop_gives_the_same_outputs_gradients_and_statistics(float64, rematerialize):
    images = [np.random.default_rng(n).normal(size=(2, 5, 7, 8)) for n in (1, 2)]
    variables = random_variables(Repeated(False), *images, train=False)
    variables = jax.tree.map(np.float64, variables)

    def inner(outputs):
        return [outputs[0]["block/unit_8"][0], *(maps["block/unit_7"][1] for maps in outputs)]

    loop, plain = (
        training_pass(rematerialized(Repeated(scan), what), variables, images, inner)
        for scan, what in ((True, rematerialize), (False, "none"))
    )
    assert_equal(loop, plain)


def test_only_neighbours_that_are_alike_share_a_loop(float64):
    image = jnp.zeros((2, 5, 7, 8))
    variables = random_variables(Repeated(False), image, train=False)
    traced = jax.make_jaxpr(lambda v, x: Repeated(True).apply(v, x, train=False))(variables, image)
    assert loops(traced) == [3, 3]


@pytest.mark.parametrize(
    ("backbone", "options", "lengths"),
    [
        ("resnet_101", {}, [22]),
        ("xception_65", {}, [16]),
        ("resnet_18", {}, []),
        # Where strides lie in first units, the first of block3 runs at the old rate.
        pytest.param(
            "resnet_101",
            {"stride_placement": "torchvision", "output_stride": 8},
            [3, 22],
            marks=pytest.mark.slow,
        ),
        pytest.param("xception_41", {"output_stride": 8}, [8], marks=pytest.mark.slow),
    ],
)
def test_the_long_runs_of_published_networks_are_loops(backbone, options, lengths):
    module = find_backbone(backbone).module(scan_units=True, **options)
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    plain = find_backbone(backbone).module(**options)
    names = jax.eval_shape(lambda x: plain.init(jax.random.key(0), x, train=False), image)
    assert jax.tree.structure(variables) == jax.tree.structure(names)

    def trace():
        return jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False)["output"])

    assert loops(trace()(variables, image)) == lengths
    with ops.portable():
        assert loops(trace()(variables, image)) == []


def loops(traced):
    """Returns the lengths of a traced program's loops."""
    return [int(length) for length in re.findall(r"scan\[.*?length=(\d+)", str(traced), re.S)]


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "vgg_16", "mobilenet_v3_large"])
def test_backbones_without_long_runs_are_refused(backbone):
    with pytest.raises(DeepLabError, match="too few units that are alike"):
        create_model("deeplab_v3", backbone=backbone, head="pooling", scan_units=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "options", "inner"),
    [
        ("resnet_50", {"multi_grid": (1, 2, 4)}, "block3/unit_4/conv3"),
        ("xception_41", {}, "middle_flow/unit_5/separable_conv2"),
    ],
)
def test_published_networks_are_the_same_as_loops(float64, backbone, options, inner):
    image = np.random.default_rng(1).uniform(-1, 1, (2, 33, 47, 3))
    make = partial(find_backbone(backbone).module, dtype=jnp.float64, **options)
    variables = jax.tree.map(np.float64, random_variables(make(), image, train=False))
    loop, plain = (
        training_pass(
            make(scan_units=scan),
            variables,
            [image],
            lambda maps: [maps["output"], maps[inner]],
        )
        for scan in (True, False)
    )
    assert_equal(loop, plain)
