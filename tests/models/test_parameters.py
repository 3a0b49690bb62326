"""Exact parameter counts (facts 5.2) and the names that the papers give to parts."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util
from selection import slow_unless

from deeplab_jax import ops
from deeplab_jax.models import create_model


def parameters(architecture, **keywords):
    """Returns {path: shape and dtype} of the parameters and statistics, without computing them."""
    model = create_model(architecture, **keywords)
    image = jax.ShapeDtypeStruct((1, 33, 33, model.architecture.in_channels), jnp.uint8)
    with ops.dispatching(export=True):
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return {
        name: traverse_util.flatten_dict(variables.get(name, {}), sep="/")
        for name in ("params", "batch_stats")
    }


def count(params, part=""):
    return sum(leaf.size for path, leaf in params.items() if path.startswith(part))


COUNTS = [
    ("deeplab_v3", {"backbone": "resnet_50"}, 39_048_533, 23_508_032),
    ("deeplab_v3", {"backbone": "resnet_50_beta"}, 39_172_309, 23_631_808),
    ("deeplab_v3", {"backbone": "resnet_101"}, 58_040_661, 42_500_160),
    ("deeplab_v3", {"backbone": "resnet_101_beta"}, 58_164_437, 42_623_936),
    ("deeplab_v3plus", {"backbone": "resnet_50"}, 40_352_181, 23_508_032),
    ("deeplab_v3plus", {"backbone": "resnet_50_beta"}, 40_475_957, 23_631_808),
    ("deeplab_v3plus", {"backbone": "resnet_101"}, 59_344_309, 42_500_160),
    ("deeplab_v3plus", {"backbone": "resnet_101_beta"}, 59_468_085, 42_623_936),
    (
        "deeplab_v3plus",
        {"backbone": "resnet_50_beta", "separable": True},
        26_819_909,
        23_631_808,
    ),
    (
        "deeplab_v3plus",
        {"backbone": "resnet_101_beta", "separable": True},
        45_812_037,
        42_623_936,
    ),
    ("deeplab_v1", {}, 20_505_429, 14_714_688),
    ("deeplab_v1", {"fov": "7x7"}, 134_346_581, 14_714_688),
    ("deeplab_v1", {"fov": "4x4"}, 65_140_565, None),
    ("deeplab_v1", {"fov": "4x4", "atrous_rates": (8,)}, 65_140_565, None),
    # The branch width of 1024 is a fact from memory (facts 1.2); the total follows from it.
    ("deeplab_v2", {"backbone": "vgg_16"}, 37_877_652, 14_714_688),
    ("deeplab_v2", {"backbone": "vgg_16", "aspp": "small"}, 37_877_652, 14_714_688),
    ("deeplab_v2", {}, 44_048_532, 42_500_160),
    ("deeplab_v2", {"head": "large_fov"}, 42_887_253, 42_500_160),
    ("deeplab_v2", {"head": "plain"}, 42_543_189, 42_500_160),
    ("deeplab_v3", {"backbone": "xception_65"}, 53_407_813, 37_867_312),
    ("deeplab_v3plus", {"separable": False}, 54_711_461, 37_867_312),
    ("deeplab_v3plus", {}, 41_055_413, 37_867_312),
    ("deeplab_v3plus", {"backbone": "xception_41"}, 28_108_661, 24_920_560),
    ("deeplab_v3plus", {"backbone": "xception_71"}, 43_477_837, 40_289_736),
    ("torchvision/deeplabv3_resnet50", {}, 42_004_074, 23_508_032),
    ("torchvision/deeplabv3_resnet101", {}, 60_996_202, 42_500_160),
    ("torchvision/deeplabv3_mobilenet_v3_large", {}, 11_029_328, 2_971_952),
    ("deeplab_v3", {"backbone": "mobilenet_v2"}, 2_113_557, 1_811_712),
    ("deeplab_v3", {"backbone": "mobilenet_v2", "depth_multiplier": 0.5}, 697_013, None),
    ("deeplab_v3", {"backbone": "mobilenet_v2", "head": "aspp"}, 4_523_541, 1_811_712),
]


def _is_small(case):
    """The deeper networks repeat a unit of the smaller ones."""
    return not re.search("resnet_?101|xception_71", str(case))


@pytest.mark.parametrize(
    ("architecture", "keywords", "total", "backbone"), slow_unless(_is_small, COUNTS)
)
def test_counts_are_the_published_ones(architecture, keywords, total, backbone):
    params = parameters(architecture, **keywords)["params"]
    assert count(params) == total
    assert backbone is None or count(params, "backbone/") == backbone


CASCADES = {
    "resnet_50": (23_551_061, 36_938_837, 50_326_613, 63_714_389),
    "resnet_101": (42_543_189, 55_930_965, 69_318_741, 82_706_517),
}


@pytest.mark.parametrize("blocks", slow_unless((4, 7).__contains__, [4, 5, 6, 7]))
@pytest.mark.parametrize(("stem", "extra"), [("", 0), ("_beta", 123_776)])
@pytest.mark.parametrize("backbone", slow_unless(_is_small, CASCADES))
def test_counts_of_the_cascades(backbone, stem, extra, blocks):
    keywords = {"backbone": backbone + stem, "head": "cascade", "cascade_blocks": blocks}
    params = parameters("deeplab_v3", **keywords)["params"]
    assert count(params) == CASCADES[backbone][blocks - 4] + extra


def test_multi_scale_prediction_adds_two_layers_on_the_image_and_four_maps():
    """One classifier per map would give 1,206,121; a shared one has four biases fewer."""
    added = sum(9 * c * 128 + 128 + 128 * 128 + 128 + 128 * 21 for c in (3, 64, 128, 256, 512))
    assert added == 1_206_121 - 5 * 21
    params = parameters("deeplab_v1", decoder="msc")["params"]
    assert count(params) == 20_505_429 + added


def test_scales_share_their_weights():
    assert count(parameters("deeplab_v2", multi_scale=(1, 0.75, 0.5))["params"]) == 44_048_532


def test_counts_depend_on_neither_output_stride_nor_multi_grid():
    params = parameters(
        "deeplab_v3", backbone="resnet_50_beta", output_stride=8, multi_grid=(1, 2, 4)
    )
    assert count(params["params"]) == 39_172_309


@pytest.mark.parametrize(
    ("keywords", "shapes"),
    [
        (
            {"backbone": "resnet_50"},
            {
                "backbone/stem_1/kernel": (7, 7, 3, 64),
                "backbone/block1/unit_1/shortcut/kernel": (1, 1, 64, 256),
                "backbone/block3/unit_5/conv2/kernel": (3, 3, 256, 256),
                "backbone/block3/unit_5/conv2/norm/scale": (256,),
                "aspp/image_pooling/conv/kernel": (1, 1, 2048, 256),
                "aspp/pointwise/kernel": (1, 1, 2048, 256),
                "aspp/rate_12/kernel": (3, 3, 2048, 256),
                "aspp/projection/kernel": (1, 1, 1280, 256),
                "decoder/low_level/kernel": (1, 1, 256, 48),
                "decoder/refine_1/kernel": (3, 3, 304, 256),
                "decoder/refine_2/kernel": (3, 3, 256, 256),
                "classifier/kernel": (1, 1, 256, 21),
                "classifier/bias": (21,),
            },
        ),
        (
            {"backbone": "mobilenet_v2", "separable": True, "num_classes": 4, "in_channels": 1},
            {
                "backbone/layer_1/kernel": (3, 3, 1, 32),
                "backbone/layer_4/expand/kernel": (1, 1, 24, 144),
                "backbone/layer_4/depthwise/kernel": (3, 3, 1, 144),
                "backbone/layer_18/project/kernel": (1, 1, 960, 320),
                "aspp/rate_6/depthwise/kernel": (3, 3, 1, 320),
                "aspp/rate_6/pointwise/kernel": (1, 1, 320, 256),
                "decoder/low_level/kernel": (1, 1, 144, 48),
                "decoder/refine_1/depthwise/norm/bias": (304,),
                "classifier/kernel": (1, 1, 256, 4),
            },
        ),
    ],
)
def test_names_and_shapes_follow_the_papers(keywords, shapes):
    params = parameters("deeplab_v3plus", **keywords)["params"]
    assert {path: params[path].shape for path in shapes} == shapes


def test_parts_that_are_switched_off_have_no_parameters():
    options = {"backbone": "mobilenet_v2", "head": "aspp", "image_pooling": "none"}
    paths = parameters("deeplab_v3", **options)["params"]
    assert not any("image_pooling" in path or "decoder" in path for path in paths)
    plain = parameters("deeplab_v3", backbone="mobilenet_v2", head="plain")["params"]
    assert {path.partition("/")[0] for path in plain} == {"backbone", "classifier"}


def test_parameters_and_statistics_stay_float32_in_bfloat16():
    found = parameters("deeplab_v3plus", backbone="mobilenet_v2", dtype="bfloat16")
    leaves = [*found["params"].values(), *found["batch_stats"].values()]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
