"""Counts against facts 5.1 and 5.2, sums by hand, and receptive fields against gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.models import create_model
from deeplab_jax.models.receptive_field import flatten, receptive_field
from deeplab_jax.models.summary import summarize
from deeplab_jax.ops import resize_bilinear


@pytest.mark.parametrize(
    ("architecture", "keywords", "parameters", "billions"),
    [
        ("deeplab_v3", {"backbone": "resnet_101"}, 58_040_661, 68.91),
        ("deeplab_v3", {"backbone": "resnet_101_beta"}, 58_164_437, 76.05),
        (
            "deeplab_v3plus",
            {"backbone": "resnet_50", "separable": False},
            40_352_181,
            70.05,
        ),
        ("deeplab_v3", {"backbone": "mobilenet_v2"}, 2_113_557, 2.74),
    ],
)
def test_parameters_and_multiply_adds(architecture, keywords, parameters, billions):
    summary = summarize(create_model(architecture, **keywords))
    assert summary.parameters == parameters
    assert sum(layer.parameters for layer in summary.layers) == parameters
    assert round(summary.macs / 1e9, 2) == billions


def test_tensorflow_counts_regular_atrous_convolutions_on_padded_maps():
    summary = summarize(create_model("deeplab_v3", multi_grid=(1, 2, 4)))
    assert round(summary.macs_tf_convention / 1e9, 2) == 80.83
    by_name = {layer.name: layer for layer in summary.layers}
    # The map of 33 × 33 is padded to 36 × 36.
    branch = by_name["aspp/rate_12"]
    assert branch.macs == 33 * 33 * 9 * 2048 * 256
    assert branch.macs_tf_convention == 36 * 36 * 9 * 2048 * 256
    separable = summarize(create_model("deeplab_v3", backbone="xception_65", separable=True))
    assert separable.macs_tf_convention == separable.macs


TINY = {
    "backbone": "mobilenet_v2",
    "depth_multiplier": 0.1,
    "output_stride": 32,
    "num_classes": 5,
}


@pytest.mark.parametrize(
    "backbone", ["vgg_16", "resnet_18", "xception_41", "mobilenet_v3_small", "timm/convnext_atto"]
)
def test_no_feature_map_of_a_tiny_image_is_empty(backbone):
    model = create_model("deeplab_v3", backbone=backbone, head="plain", multi_scale=(1, 0.3))
    summary = summarize(model, (5, 1))
    assert all(0 not in shape for shape in summary.endpoints.values())


def test_a_network_counted_by_hand():
    summary = summarize(create_model("deeplab_v3", head="plain", **TINY), (64, 70))
    rows = {layer.name: layer for layer in summary.layers}
    # The stem has 32 · 0.1 = 3 channels, layer_2 has 1: a depthwise and a 1×1 convolution.
    stem = rows["backbone/layer_1"]
    assert (stem.kernel, stem.stride, stem.rate, stem.groups) == ((3, 3), (2, 2), (1, 1), 1)
    assert (stem.output, stem.macs) == ((32, 35, 3), 32 * 35 * 3 * 3 * 3 * 3)
    assert stem.parameters == 3 * 3 * 3 * 3 + 2 * 3
    depthwise = rows["backbone/layer_2/depthwise"]
    assert (depthwise.groups, depthwise.macs) == (3, 32 * 35 * 9 * 3)
    assert rows["backbone/layer_2/project"].macs == 32 * 35 * 3 * 1
    # 320 · 0.1 = 32 channels on a map of 2 × 3, to 5 classes.
    classifier = rows["classifier"]
    assert (classifier.macs, classifier.parameters) == (2 * 3 * 32 * 5, 32 * 5 + 5)
    assert summary.endpoints["output"] == (2, 3, 32)
    assert summary.endpoints["scores"] == (2, 3, 5)
    assert summary.output_stride == 32
    assert summary.macs == sum(layer.macs for layer in summary.layers)


def test_endpoints_come_in_the_order_of_computation():
    endpoints = list(summarize(create_model("deeplab_v3", **TINY), (33, 33)).endpoints)
    order = [endpoints.index(f"layer_{number}") for number in range(1, 19)]
    assert order == sorted(order)
    assert endpoints[-1] == "scores"


def test_every_scale_is_computed_but_its_parameters_are_shared():
    options = {"backbone": "mobilenet_v2", "depth_multiplier": 0.1}
    once = summarize(create_model("deeplab_v2", **options), (65, 65))
    thrice = summarize(create_model("deeplab_v2", multi_scale=(1, 0.75, 0.5), **options), (65, 65))
    halves = [
        summarize(create_model("deeplab_v2", **options), size) for size in ((49, 49), (33, 33))
    ]
    assert thrice.macs == once.macs + sum(summary.macs for summary in halves)
    assert thrice.parameters == once.parameters == sum(row.parameters for row in thrice.layers)
    assert thrice.receptive_field == once.receptive_field


def resnet_receptive_field(stem, block_sizes):
    """The sum over layers of (kernel − 1) · jump; the last 3×3 of a block has its stride."""
    size, jump = 1, 1
    windows = [*stem, (3, 2)]
    for number, units in enumerate(block_sizes, start=1):
        windows += [(3, 1)] * (units - 1) + [(3, 2 if number < 4 else 1)]
    for kernel, stride in windows:
        size, jump = size + (kernel - 1) * jump, jump * stride
    return size


@pytest.mark.parametrize(
    ("backbone", "stem", "block_sizes", "known"),
    [
        ("resnet_50", [(7, 2)], (3, 4, 6, 3), 483),
        ("resnet_101", [(7, 2)], (3, 4, 23, 3), 1027),
        ("resnet_50_beta", [(3, 2), (3, 1), (3, 1)], (3, 4, 6, 3), 487),
    ],
)
def test_receptive_field_of_resnets(backbone, stem, block_sizes, known):
    assert resnet_receptive_field(stem, block_sizes) == known
    options = {"backbone": backbone, "head": "plain"}
    nominal = summarize(create_model("deeplab_v3", output_stride=32, **options), (33, 33))
    assert nominal.receptive_field == known
    # Atrous convolution keeps the field of view: section 3.1 of DeepLab v3, but for the unit that
    # lost its stride and still runs at the old rate, which the strided one does too.
    dense = summarize(create_model("deeplab_v3", output_stride=8, **options), (33, 33))
    assert dense.receptive_field == known


def test_the_receptive_field_contains_an_atrous_classifier():
    sizes = [
        summarize(create_model("deeplab_v2", **TINY | {"output_stride": 16} | options))
        for options in ({"atrous_rates": (1,)}, {"atrous_rates": (9,)}, {"head": "large_fov"})
    ]
    # The rate of LargeFOV, 12 at output stride 8, is 6 at output stride 16.
    assert sizes[1].receptive_field - sizes[0].receptive_field == 2 * (9 - 1) * 16
    assert sizes[2].receptive_field - sizes[0].receptive_field == 2 * (6 - 1) * 16


@pytest.mark.parametrize("size", ["large", "small"])
def test_the_gate_of_lite_reduced_aspp_leaves_the_receptive_field_alone(size):
    def measured(**options):
        model = create_model("deeplab_v3", backbone=f"mobilenet_v3_{size}_seg", **options)
        return summarize(model, (97, 129)).receptive_field

    assert measured(image_pooling="crop", pooling_crop=(65, 65)) == measured() < 1000


def test_image_pooling_leaves_the_receptive_field_alone():
    def measured(**options):
        model = create_model("deeplab_v3", head="aspp", **TINY | {"output_stride": 16} | options)
        return summarize(model, (97, 129)).receptive_field

    without = measured(image_pooling="none")
    assert measured(image_pooling="global") == without
    assert measured(image_pooling="crop", pooling_crop=(65, 65)) == without


def open_variables(model, image):
    """Returns variables under which every activation is positive and below 6.

    No ReLU then blocks a path.
    """
    shapes = traverse_util.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), image))

    def fill(path, leaf):
        if path[-1] == "kernel":
            return np.full(leaf.shape, 0.9 / np.prod(leaf.shape[:-1]), np.float32)
        return np.full(leaf.shape, float(path[-1] in ("scale", "var")), np.float32)

    return traverse_util.unflatten_dict({path: fill(path, leaf) for path, leaf in shapes.items()})


def seen_columns(model, width):
    """Returns the number of image columns that the center of `scores` depends on."""
    image = jnp.full((1, 33, width, 3), 0.1, jnp.float32)
    variables = open_variables(model, image)

    def middle(image):
        scores = model.apply(variables, image, endpoints=True)[1]["scores"]
        return scores[0, scores.shape[1] // 2, scores.shape[2] // 2].sum()

    gradient = run_once(jax.grad(middle), image)
    columns = np.flatnonzero(np.abs(gradient).sum((0, 1, 3)))
    assert columns[0] > 0
    assert columns[-1] < width - 1
    return columns[-1] - columns[0] + 1


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("deeplab_v3", {"head": "plain", "output_stride": 32}),
        # The branches of ASPP are classifiers.
        ("deeplab_v2", {"atrous_rates": (2, 5), "output_stride": 16}),
        ("deeplab_v3", {"head": "aspp", "atrous_rates": (2, 5), "output_stride": 16}),
        ("deeplab_v3plus", {"atrous_rates": (2,), "output_stride": 16}),
        # The taps of the only convolution after upsampling are on both sides of an encoder sample.
        ("deeplab_v3plus", {"atrous_rates": (2,), "output_stride": 16, "decoder_convs": ((3, 4),)}),
    ],
)
def test_receptive_field_is_what_the_gradient_reaches(architecture, options):
    small = {"image_pooling": "none", "preprocessing": "none"}
    if options.get("head") != "plain" and architecture != "deeplab_v2":
        small |= {"aspp_channels": 4}
    if architecture == "deeplab_v3plus":
        small |= {"low_level_channels": 4, "decoder_convs": ((3, 4), (3, 4))}
    model = create_model(architecture, **TINY | small | options)
    width = 833
    assert summarize(model, (33, width)).receptive_field == seen_columns(model, width)


def receptive_field_of(function, size=(17, 17)):
    image = jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)
    with ops.dispatching(export=True):
        program = flatten(jax.make_jaxpr(function)(image))
    return receptive_field(program, program.inputs[0], program.outputs[0])


@pytest.mark.parametrize(
    ("function", "pixels"),
    [
        (lambda x: x, 1),
        (lambda x: jnp.maximum(x, 0)[:, ::2, ::2], 1),
        (lambda x: jax.jit(lambda y: y + 1)(x[..., ::-1]), 1),
        (lambda x: x.mean((1, 2)), 0),
        (lambda x: x * x.mean((1, 2), keepdims=True), 1),
        (lambda x: jnp.zeros((1, 17, 17, 1)), 0),
        (lambda x: nn.max_pool(x, (3, 5), padding="SAME"), 5),
        # Pixels 1 apart become samples ½ apart: 3 of them lie between as many pixels.
        (lambda x: nn.max_pool(resize_bilinear(x, (33, 33)), (3, 3), padding="SAME"), 3),
        (lambda x: nn.max_pool(resize_bilinear(x, (33, 33)), (2, 2)), 2),
        # Samples 4 pixels apart become samples 1 apart: 3 of them lie between 3 of the former.
        (lambda x: nn.max_pool(resize_bilinear(x[:, ::4, ::4], (17, 17)), (3, 3)), 9),
        (lambda x: resize_bilinear(x, (9, 9)), 1),
        (lambda x: jnp.concatenate([x, x.transpose(0, 2, 1, 3)], -1), 1),
    ],
)
def test_receptive_field_of_single_operations(function, pixels):
    assert receptive_field_of(function) == pixels


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(1, 289, 1),
        lambda x: jax.lax.cond(x[0, 0, 0, 0] > 0, jnp.sin, jnp.cos, x),
    ],
)
def test_untraceable_operations_are_reported(function):
    with pytest.raises(NotImplementedError, match="receptive fields of networks with"):
        receptive_field_of(function)
