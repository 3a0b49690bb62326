import dataclasses
import json
import math

import pytest

from deeplab_jax.backbones import BACKBONES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model, list_models
from deeplab_jax.named_architectures import BACKBONE_KEYWORDS


def test_names_decide_and_keywords_change():
    model = create_model("deeplab_v3plus", output_stride=8, decoder_convs=[[3, 64]])
    options = model.architecture
    assert (options.backbone, options.head, options.decoder) == ("xception_65", "aspp", "v3plus")
    assert options.decoder_convs == ((3, 64),)
    assert json.loads(json.dumps(options.describe()))["output_stride"] == 8
    assert list(list_models())[:4] == ["deeplab_v1", "deeplab_v2", "deeplab_v3", "deeplab_v3plus"]


@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [(4, (24, 48, 72)), (8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))],
)
def test_default_rates_keep_their_extent_in_the_image(output_stride, rates):
    made = create_model("deeplab_v3", output_stride=output_stride).architecture
    assert made.atrous_rates == rates
    kept = create_model("deeplab_v3", output_stride=output_stride, atrous_rates=[2, 4])
    assert kept.architecture.atrous_rates == (2, 4)


# Published rates and strides: DeepLab v2, table 1 and section 4.1.2; torchvision's networks.
@pytest.mark.parametrize(
    ("architecture", "keywords", "rates"),
    [
        ("deeplab_v1", {}, {4: (24,), 8: (12,), 16: (6,), 32: (3,)}),
        ("deeplab_v1", {"fov": "4x4"}, {8: (4,), 16: (2,), 32: (1,)}),
        ("deeplab_v2", {}, {4: (12, 24, 36, 48), 8: (6, 12, 18, 24), 16: (3, 6, 9, 12), 32: None}),
        ("deeplab_v2", {"aspp": "small"}, {8: (2, 4, 8, 12), 16: (1, 2, 4, 6), 32: None}),
        ("deeplab_v2", {"aspp": "large"}, {8: (6, 12, 18, 24), 16: (3, 6, 9, 12), 32: None}),
        ("deeplab_v2", {"fusion": "concat"}, {8: (12, 24, 36), 16: (6, 12, 18)}),
        ("deeplab_v2", {"head": "large_fov"}, {8: (12,), 16: (6,)}),
        ("deeplab_v3", {"fusion": "sum"}, {8: (6, 12, 18, 24), 16: (3, 6, 9, 12)}),
        ("deeplab_v3", {"head": "dpc"}, {8: (), 16: (), 32: None}),
        (
            "torchvision/deeplabv3_resnet50",
            {},
            {4: (24, 48, 72), 8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)},
        ),
        (
            "torchvision/deeplabv3_mobilenet_v3_large",
            {},
            {8: (24, 48, 72), 16: (12, 24, 36), 32: (6, 12, 18)},
        ),
    ],
)
def test_default_rates_of_every_head_follow_the_output_stride(architecture, keywords, rates):
    for output_stride, expected in rates.items():
        if expected is None:
            with pytest.raises(DeepLabError, match=r"legal output strides: 4, 8, 16$"):
                create_model(architecture, output_stride=output_stride, **keywords)
            continue
        made = create_model(architecture, output_stride=output_stride, **keywords).architecture
        assert made.atrous_rates == expected
        given = {name: value for name, value in keywords.items() if name != "aspp"}
        if made.atrous_rates:
            own = tuple(2 * rate + 1 for rate in expected)
            kept = create_model(
                architecture, output_stride=output_stride, atrous_rates=own, **given
            )
            assert kept.architecture.atrous_rates == own


# INTERFACE: what each name and backbone stands for when nothing else is said.
@pytest.mark.parametrize(
    ("architecture", "keywords", "expected"),
    [
        (
            "deeplab_v1",
            {},
            {"backbone": "vgg_16", "output_stride": 8, "fc_channels": 1024, "atrous_rates": (12,)},
        ),
        ("deeplab_v1", {"fov": "7x7"}, {"fc_channels": 4096, "atrous_rates": (4,)}),
        ("deeplab_v1", {"fov": "4x4", "atrous_rates": (8,)}, {"atrous_rates": (8,)}),
        ("deeplab_v1", {"backbone": "resnet_50"}, {"fc_channels": 1024, "head": "large_fov"}),
        (
            "deeplab_v2",
            {},
            {
                "backbone": "resnet_101",
                "output_stride": 8,
                "fusion": "sum",
                "fc_channels": 0,
                "atrous_rates": (6, 12, 18, 24),
                "stride_placement": "caffe",
                "preprocessing": "caffe_bgr",
                "image_pooling": "none",
            },
        ),
        ("deeplab_v2", {"backbone": "vgg_16"}, {"fc_channels": 1024, "stride_placement": None}),
        ("deeplab_v2", {"backbone": "vgg_16", "aspp": "small"}, {"atrous_rates": (2, 4, 8, 12)}),
        ("deeplab_v2", {"head": "large_fov"}, {"fc_channels": 0, "atrous_rates": (12,)}),
        ("deeplab_v3", {}, {"backbone": "resnet_101_beta", "separable": False, "decoder": "none"}),
        ("deeplab_v3", {"backbone": "mobilenet_v3_small_seg"}, {"head": "lr_aspp"}),
        ("deeplab_v3", {"backbone": "mobilenet_v3_large"}, {"head": "aspp"}),
        ("deeplab_v3", {"head": "cascade"}, {"cascade_blocks": 7}),
        ("deeplab_v3plus", {}, {"separable": True, "low_level_channels": 48}),
        ("deeplab_v3plus", {"backbone": "resnet_50"}, {"separable": False}),
        ("deeplab_v3plus", {"decoder": "conv2_conv3"}, {"decoder_convs": ((3, 256),)}),
        ("deeplab_v3plus", {"backbone": "mobilenet_v3_large_seg"}, {"head": "aspp"}),
        (
            "torchvision/deeplabv3_resnet50",
            {},
            {"aux_head": True, "align_corners": False, "stride_placement": "torchvision"},
        ),
    ],
)
def test_defaults_are_the_published_nets(architecture, keywords, expected):
    options = create_model(architecture, **keywords).architecture
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("backbone", "preprocessing"),
    [
        ("mobilenet_v2", "minus_one_one"),
        ("resnet_50", "mean"),
        ("resnet_101", "mean"),
        ("resnet_50_beta", "minus_one_one"),
        ("resnet_101_beta", "minus_one_one"),
    ],
)
def test_backbones_bring_their_own_defaults(backbone, preprocessing):
    options = {
        name: create_model(name, backbone=backbone).architecture
        for name in ("deeplab_v3", "deeplab_v3plus")
    }
    assert {made.preprocessing for made in options.values()} == {preprocessing}
    published = "pooling" if backbone == "mobilenet_v2" else "aspp"
    assert (options["deeplab_v3"].head, options["deeplab_v3plus"].head) == (published, "aspp")


@pytest.mark.parametrize(
    ("keywords", "complaint"),
    [
        ({"backbone": "resnet50"}, "unknown backbone 'resnet50'; did you mean 'resnet_50'?"),
        ({"output_strid": 8}, "did you mean 'output_stride'?"),
        (
            {"head": "asp"},
            "unknown head 'asp'; did you mean 'aspp'? legal: large_fov, aspp, ",
        ),
        ({"decoder": None}, "decoder=None must be one of none, v3plus, conv2_conv3, msc"),
        ({"output_stride": 12}, "output_stride=12 must be one of 4, 8, 16, 32"),
        ({"output_stride": 0}, "must be one of 4, 8, 16, 32"),
        ({"output_stride": "16"}, "output_stride='16' must be one of 4, 8, 16, 32"),
        ({"output_stride": 16.0}, "output_stride=16.0 must be one of 4, 8, 16, 32"),
        ({"output_stride": True}, "output_stride=True must be one of 4, 8, 16, 32"),
        ({"output_stride": {}}, "output_stride={} must be one of 4, 8, 16, 32"),
        ({"projection_size": 1.0}, "projection_size=1.0 must be one of 1, 3"),
        ({"projection_size": True}, "projection_size=True must be one of 1, 3"),
        ({"head": "cascade", "cascade_blocks": 5.0}, "cascade_blocks=5.0 must be one of 4, 5"),
        ({"backbone": "mobilenet_v2", "width_divisor": 8.0}, "width_divisor=8.0 must be one of"),
        ({"backbone": [1]}, "backbone=(1,) must be a name"),
        ({"backbone": None}, "backbone=None must be a name"),
        ({"head": "large_fov", "fov": {}}, "fov={} must be one of large, 4x4, 7x7"),
        ({"head": ["aspp", {}]}, "must be one of large_fov, aspp"),
        ({"dtype": "float16"}, "legal: float32, bfloat16, float64"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"aspp_channels": 2.5}, "aspp_channels=2.5 must be a whole number"),
        ({"atrous_rates": (0, 6)}, "atrous_rates=(0, 6)"),
        ({"atrous_rates": (6, 6)}, "different whole numbers"),
        ({"decoder_convs": ((3,),)}, "pairs of kernel size and channels"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0 must be in [0, 1)"),
        ({"batch_norm_decay": 1.5}, "batch_norm_decay=1.5"),
        ({"depth_multiplier": 0.5}, "resnet_101_beta does not support depth_multiplier"),
        ({"backbone": "mobilenet_v2", "depth_multiplier": 0.0}, "above 0"),
        ({"multi_grid": (1, 2)}, "must have 3 rates"),
        ({"multi_grid": (0, 1, 2)}, "multi_grid=(0, 1, 2)"),
        ({"backbone": "mobilenet_v2", "multi_grid": (1, 2, 4)}, "which only ResNets support"),
        ({"backbone": "resnet_50", "in_channels": 1}, "preprocessing='mean' requires 8-bit RGB"),
        ({"output_stride": 64}, "output_stride=64 must be one of 4, 8, 16, 32"),
        (
            {"head": "cascade", "cascade_blocks": 5, "output_stride": 128},
            "output_stride=128 must be one of 4, 8, 16, 32, 64",
        ),
        ({"head": "cascade", "backbone": "xception_65"}, "does not support head='cascade'"),
        ({"cascade_blocks": 6}, "cascade_blocks=6 requires head='cascade', but head='aspp'"),
        ({"head": "cascade", "cascade_blocks": 8}, "cascade_blocks=8 must be one of"),
        ({"backbone": "vgg_16", "multi_grid": (1, 2, 4)}, "vgg_16 does not support multi_grid"),
        ({"backbone": "resnet_18", "multi_grid": (1, 2, 4)}, "must have 2 rates"),
        ({"backbone": "xception_41", "stride_placement": "caffe"}, "set stride_placement=None"),
        ({"stride_placement": "cafe"}, "did you mean 'caffe'?"),
        ({"aspp": "tiny"}, "unknown aspp 'tiny'; legal: small, large"),
        ({"aspp": "small", "atrous_rates": (2, 4)}, "omit atrous_rates or aspp"),
        (
            {"head": "large_fov", "atrous_rates": (6, 12)},
            "head='large_fov' requires exactly one atrous rate",
        ),
        (
            {"backbone": "mobilenet_v2", "atrous_rates": (6, 12)},
            "has no effect with head='pooling'; use head='aspp' or 'large_fov'",
        ),
        ({"fov": "4x4"}, "fov='4x4' has no effect: it sets the kernel size of the layer fc6"),
        ({"fusion": "sum", "head": "spp"}, "fusion='sum' requires head='aspp'"),
        ({"head": "lr_aspp", "decoder": "v3plus"}, "head='lr_aspp' outputs class scores"),
        ({"fusion": "sum", "decoder": "v3plus"}, "use decoder='none'"),
        ({"multi_scale": (0.5, 1)}, "multi_scale=(0.5, 1) must be scale factors in (0, 1], beg"),
        ({"pooling_crop": (513,)}, "pooling_crop=(513,) must be a height and a width"),
        ({"depth_multiplier": math.inf}, "depth_multiplier=inf must be a finite number above 0"),
        ({"pixel_mean": (math.inf, 2, 3)}, "pixel_mean=(inf, 2, 3) must be finite numbers"),
        ({"pixel_std": (1, math.inf, 3)}, "pixel_std=(1, inf, 3) must be finite numbers above 0"),
    ],
)
def test_illegal_combinations_give_a_one_line_error(keywords, complaint):
    with pytest.raises(DeepLabError) as caught:
        create_model("deeplab_v3", **keywords)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(DeepLabError, match="did you mean 'deeplab_v3plus'"):
        create_model("deeplab_v3_plus")


def test_an_architecture_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        create_model("deeplab_v3").architecture.head = "plain"


def test_every_backbone_declares_its_keywords():
    assert list(BACKBONE_KEYWORDS) == list(BACKBONES)
    assert {name: entry.options for name, entry in BACKBONES.items()} == BACKBONE_KEYWORDS
