"""The name map of the released TensorFlow code, from lists of the variables alone."""

from pathlib import Path

import numpy as np
import official_variables
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_classifier, create_model
from deeplab_jax.pretrained.assignment import assign
from deeplab_jax.pretrained.conversion import identify, wanted_variables
from deeplab_jax.pretrained.name_maps.tensorflow import MULTI_GRIDS, identify_backbone
from deeplab_jax.pretrained.weights import GraphFacts, PublishedWeights

ASPP = {"head": "aspp", "image_pooling": "global", "aspp_channels": 256}
POOLING = {"head": "pooling", "image_pooling": "global", "aspp_channels": 256}
DECODER = {
    "decoder": "v3plus",
    "low_level_channels": 48,
    "decoder_convs": ((3, 256), (3, 256)),
}
LITE = {
    "head": "lr_aspp",
    "aspp_channels": 128,
    "output_stride": 32,
    "image_pooling": "crop",
    "pooling_crop": (769, 769),
    "depth_multiplier": 1.0,
    "num_classes": 19,
}
V3, V3_PLUS, CLASSIFIER = "deeplab_v3", "deeplab_v3plus", "image_classifier"
# List → architecture and keywords that are told from it.
EXPECTED = {
    "deeplab_xception_65_voc": (
        V3_PLUS,
        {"backbone": "xception_65", "num_classes": 21, "separable": True, **ASPP, **DECODER},
    ),
    "deeplab_xception_41_voc": (
        V3_PLUS,
        {"backbone": "xception_41", "num_classes": 21, "separable": True, **ASPP, **DECODER},
    ),
    "deeplab_xception_71_dpc_cityscapes": (
        V3_PLUS,
        {
            "backbone": "xception_71",
            "num_classes": 19,
            "separable": True,
            "head": "dpc",
            "aspp_channels": 256,
            **DECODER,
        },
    ),
    "deeplab_mobilenet_v2_voc": (
        V3,
        {"backbone": "mobilenet_v2", "depth_multiplier": 1.0, "num_classes": 21, **POOLING},
    ),
    "deeplab_mobilenet_v2_dm05_voc": (
        V3,
        {"backbone": "mobilenet_v2", "depth_multiplier": 0.5, "num_classes": 21, **POOLING},
    ),
    "deeplab_mobilenet_v2_ade20k": (
        V3_PLUS,
        {
            "backbone": "mobilenet_v2",
            "depth_multiplier": 1.0,
            "num_classes": 151,
            "separable": True,
            **POOLING,
            **DECODER,
        },
    ),
    "deeplab_mobilenet_v2_aspp_voc": (
        V3,
        {
            "backbone": "mobilenet_v2",
            "depth_multiplier": 1.0,
            "num_classes": 21,
            "separable": False,
            **ASPP,
        },
    ),
    "deeplab_mobilenet_v3_large_seg_cityscapes": (
        V3,
        {"backbone": "mobilenet_v3_large_seg"} | LITE,
    ),
    "deeplab_mobilenet_v3_small_seg_cityscapes": (
        V3,
        {"backbone": "mobilenet_v3_small_seg"} | LITE,
    ),
    "deeplab_resnet_v1_50_beta_voc": (
        V3,
        {
            "backbone": "resnet_50_beta",
            "num_classes": 21,
            "separable": False,
            "multi_grid": (1, 2, 4),
            **ASPP,
        },
    ),
    "deeplab_resnet_v1_101_beta_decoder_voc": (
        V3_PLUS,
        {
            "backbone": "resnet_101_beta",
            "num_classes": 21,
            "separable": False,
            "multi_grid": (1, 2, 4),
            **ASPP,
            **DECODER,
        },
    ),
    "deeplab_resnet_v1_50_two_stages_voc": (
        V3_PLUS,
        {
            "backbone": "resnet_50",
            "num_classes": 21,
            "separable": True,
            **ASPP,
            **DECODER,
            "decoder": "conv2_conv3",
        },
    ),
    "deeplab_resnet_v1_18_beta_two_stages_cityscapes": (
        V3_PLUS,
        {
            "backbone": "resnet_18_beta",
            "num_classes": 19,
            "separable": False,
            "atrous_rates": (6, 12, 18, 24),
            **ASPP,
            **DECODER,
            "decoder": "conv2_conv3",
        },
    ),
    "imagenet_xception_65": (CLASSIFIER, {"backbone": "xception_65", "num_classes": 1001}),
    "imagenet_resnet_v1_50": (
        CLASSIFIER,
        {"backbone": "resnet_50", "num_classes": 1000, "preprocessing": "vgg_mean"},
    ),
    "imagenet_resnet_v1_101_beta": (
        CLASSIFIER,
        {"backbone": "resnet_101_beta", "num_classes": 1001},
    ),
    "imagenet_resnet_v1_18_beta": (
        CLASSIFIER,
        {"backbone": "resnet_18_beta", "num_classes": 1001},
    ),
    "imagenet_mobilenet_v2": (
        CLASSIFIER,
        {"backbone": "mobilenet_v2", "depth_multiplier": 1.0, "num_classes": 1001},
    ),
    "imagenet_mobilenet_v2_035": (
        CLASSIFIER,
        {
            "backbone": "mobilenet_v2",
            "depth_multiplier": 0.35,
            "width_divisor": 8,
            "num_classes": 1001,
        },
    ),
    "imagenet_mobilenet_v2_140": (
        CLASSIFIER,
        {
            "backbone": "mobilenet_v2",
            "depth_multiplier": 1.4,
            "width_divisor": 8,
            "num_classes": 1001,
        },
    ),
    "imagenet_mobilenet_v3_large": (
        CLASSIFIER,
        {"backbone": "mobilenet_v3_large", "depth_multiplier": 1.0, "num_classes": 1001},
    ),
    "imagenet_mobilenet_v3_small_075": (
        CLASSIFIER,
        {"backbone": "mobilenet_v3_small", "depth_multiplier": 0.75, "num_classes": 1001},
    ),
    "imagenet_vgg_16": (
        "deeplab_v1",
        {"backbone": "vgg_16", "num_classes": 1000, "fov": "7x7", "preprocessing": "vgg_mean"},
    ),
}

# Networks much like another of the list.
SLOW = (
    "deeplab_xception_41_voc",
    "deeplab_resnet_v1_101_beta_decoder_voc",
    "imagenet_xception_65",
    "imagenet_resnet_v1_50",
    "imagenet_resnet_v1_101_beta",
    "imagenet_resnet_v1_18_beta",
    "imagenet_mobilenet_v2",
    "imagenet_mobilenet_v2_140",
    "imagenet_vgg_16",
)


def empty_weights(shapes, graph=None):
    """Arrays of these shapes that take no memory."""
    zero = np.zeros((), np.float32)
    arrays = {name: np.broadcast_to(zero, shape) for name, shape in shapes.items()}
    return PublishedWeights(arrays, "tensorflow", graph)


def assigned(weights):
    """What comes of assigning the weights to the network they are told to be of."""
    convention, identified = identify(weights, "a file")
    make = create_classifier if identified.architecture == CLASSIFIER else create_model
    named = () if identified.architecture == CLASSIFIER else (identified.architecture,)
    wanted = wanted_variables(make(*named, **identified.overrides))
    return wanted, assign(wanted, weights, convention, convention.rules(identified))


@pytest.mark.parametrize("name", official_variables.LISTS)
def test_lists_are_what_the_released_code_makes(name):
    assert (official_variables.FOLDER / f"{name}.txt").read_text() == official_variables.as_text(
        name
    )


@pytest.mark.parametrize("name", official_variables.LISTS)
def test_the_network_is_recognized(name):
    _, identified = identify(empty_weights(official_variables.read(name)), "a file")
    assert identified[:2] == EXPECTED[name]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in official_variables.LISTS
    ],
)
def test_every_variable_has_its_place(name):
    shapes = official_variables.read(name)
    wanted, result = assigned(empty_weights(shapes))
    assert not result.missing
    assert not result.mismatched
    assert not result.unused
    assert not result.folded
    assert sorted(result.sources.values()) == sorted(shapes)
    assert result.sources.keys() == wanted.shapes.keys()


def test_every_list_has_a_file():
    listed = {path.stem for path in official_variables.FOLDER.glob("*.txt")}
    assert listed == set(official_variables.LISTS) == set(EXPECTED)


@pytest.mark.parametrize("multiplier", [0.35, 0.5, 0.75, 1.3, 1.4])
def test_slim_rounds_the_widths_of_mobilenet_v2(multiplier):
    variables = official_variables.Variables()
    official_variables.mobilenet_v2(variables, multiplier, 8)
    found = identify_backbone(empty_weights(variables).arrays)
    assert found == {
        "backbone": "mobilenet_v2",
        "depth_multiplier": multiplier,
        "width_divisor": 8,
    }


@pytest.mark.parametrize("multiplier", [0.25, 0.5, 1.0, 1.5, 2.0])
def test_deeplab_does_not_round_them(multiplier):
    variables = official_variables.Variables()
    official_variables.mobilenet_v2(variables, multiplier, 1)
    found = identify_backbone(empty_weights(variables).arrays)
    assert found == {"backbone": "mobilenet_v2", "depth_multiplier": multiplier}


@pytest.mark.parametrize(
    ("multiplier", "layer", "width"),
    [(0.35, "layer_2/project", 6), (1.3, "layer_2/project", 21), (1.4, "layer_1", 45)],
)
def test_deeplab_rounds_fractional_widths_to_the_nearest(multiplier, layer, width):
    variables = official_variables.Variables()
    official_variables.mobilenet_v2(variables, multiplier, 1)
    found = identify_backbone(empty_weights(variables).arrays)
    assert found.keys() == {"backbone", "depth_multiplier", "widths"}
    assert found["depth_multiplier"] == multiplier
    assert dict(found["widths"])[f"backbone/{layer}"] == width


def test_a_deeplab_with_fractional_widths_has_a_place_for_every_variable():
    shapes = official_variables.deeplab(
        lambda variables: official_variables.mobilenet_v2(variables, 0.35, 1), 21, branches=0
    )
    _, result = assigned(empty_weights(shapes))
    assert not result.missing
    assert not result.mismatched
    assert not result.unused


@pytest.mark.parametrize("form", official_variables.V3_ENDS)
@pytest.mark.parametrize("multiplier", [0.35, 0.75, 1.0, 1.5])
def test_form_of_mobilenet_v3(form, multiplier):
    variables = official_variables.Variables()
    official_variables.mobilenet_v3(variables, form, multiplier)
    found = identify_backbone(empty_weights(variables).arrays)
    assert found == {"backbone": f"mobilenet_v3_{form}", "depth_multiplier": multiplier}


def test_mismatched_widths_are_reported():
    shapes = official_variables.read("deeplab_mobilenet_v2_dm05_voc")
    shapes["MobilenetV2/expanded_conv_3/project/weights"] = (1, 1, 72, 17)
    _, result = assigned(empty_weights(shapes))
    assert any(
        "expanded_conv_3/project/weights has the shape [1, 1, 72, 17]" in m
        for m in result.mismatched
    )


def test_backbone_alone_is_refused():
    shapes = official_variables.read("deeplab_resnet_v1_50_beta_voc")
    backbone = {name: shape for name, shape in shapes.items() if name.startswith("resnet")}
    with pytest.raises(DeepLabError, match="backbone resnet_50_beta, but no classifier"):
        identify(empty_weights(backbone), "a file")


def test_missing_variable_is_named():
    shapes = official_variables.read("deeplab_mobilenet_v2_voc")
    del shapes["aspp0/BatchNorm/moving_variance"]
    _, result = assigned(empty_weights(shapes))
    assert list(result.missing.values()) == ["the file has no aspp0/BatchNorm/moving_variance"]


def test_unused_variables_are_reported():
    shapes = official_variables.read("deeplab_mobilenet_v2_dm05_voc")
    _, result = assigned(empty_weights(shapes | {"MobilenetV2/Conv_1/weights": (3,)}))
    assert result.unused == {"MobilenetV2/Conv_1/weights": "no part of the network uses it"}


@pytest.mark.parametrize(("output_stride", "base"), [(8, 4), (16, 2), (32, 1)])
@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 2, 4), (1, 2, 1)])
def test_atrous_rates_are_read_from_the_graph(output_stride, base, grid):
    scopes = [f"resnet_v1_50/block4/unit_{unit}/bottleneck_v1/conv2" for unit in (1, 2, 3)]
    rates = {scope: (base * rate,) * 2 for scope, rate in zip(scopes, grid, strict=True)}
    rates |= {f"aspp{number}": (5 * number, 5 * number) for number in (1, 2, 3)}
    window = (320 // output_stride + 1, 480 // output_stride + 1)
    graph = GraphFacts(None, {}, rates, window, strides={"aspp0": output_stride})
    shapes = official_variables.read("deeplab_resnet_v1_50_beta_voc")
    _, identified = identify(empty_weights(shapes, graph), "a file")
    told = identified.overrides
    assert told["multi_grid"] == grid
    assert told["atrous_rates"] == (5, 10, 15)
    assert told["output_stride"] == output_stride
    assert (told["image_pooling"], told["pooling_crop"]) == ("crop", (321, 481))


def test_the_assumed_multi_grid_is_documented():
    guide = Path(__file__).parents[2] / "docs" / "guides" / "pretrained.md"
    text = " ".join(guide.read_text(encoding="utf-8").split())
    assert set(MULTI_GRIDS.values()) == {(1, 2, 4)}
    for backbone in MULTI_GRIDS:
        assert f"resnet_v1_{backbone.removeprefix('resnet_')}" in text
    assert "`convert` sets (1, 2, 4)" in text
    assert "`--set='multi_grid=(1,1,1)'`" in text


def test_usual_rates_of_a_graph_follow_the_output_stride():
    rates = {f"aspp{number}_depthwise": (12 * number, 12 * number) for number in (1, 2, 3)}
    graph = GraphFacts((513, 513), {"aspp0": (65, 65)}, rates, align_corners=False)
    shapes = official_variables.read("deeplab_xception_65_voc")
    _, identified = identify(empty_weights(shapes, graph), "a file")
    assert "atrous_rates" not in identified.overrides
    assert identified.overrides["output_stride"] == 8
    assert identified.overrides["align_corners"] is False
