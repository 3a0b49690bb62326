"""Exact parameter counts (facts 5.2) and the names that the papers give to parts."""

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.models import create_model


def parameters(architecture, **keywords):
    """Returns {path: shape and dtype} of a model's parameters and statistics, unmade."""
    model = create_model(architecture, **keywords)
    image = jax.ShapeDtypeStruct((1, 33, 33, model.architecture.in_channels), jnp.uint8)
    with ops.portable():
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return {
        name: traverse_util.flatten_dict(variables[name], sep="/")
        for name in ("params", "batch_stats")
    }


def count(params, part=""):
    return sum(leaf.size for path, leaf in params.items() if path.startswith(part))


@pytest.mark.parametrize(
    ("architecture", "keywords", "total", "backbone"),
    [
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
        ("deeplab_v3", {"backbone": "mobilenet_v2"}, 2_113_557, 1_811_712),
        ("deeplab_v3", {"backbone": "mobilenet_v2", "depth_multiplier": 0.5}, 697_013, None),
        ("deeplab_v3", {"backbone": "mobilenet_v2", "head": "aspp"}, 4_523_541, 1_811_712),
    ],
)
def test_counts_are_the_published_ones(architecture, keywords, total, backbone):
    params = parameters(architecture, **keywords)["params"]
    assert count(params) == total
    assert backbone is None or count(params, "backbone/") == backbone


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
