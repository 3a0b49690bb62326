import dataclasses
import json

import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model, list_models


def test_names_decide_and_keywords_change():
    model = create_model("deeplab_v3plus", output_stride=8, decoder_convs=[[3, 64]])
    options = model.architecture
    assert (options.backbone, options.head, options.decoder) == (
        "resnet_101_beta",
        "aspp",
        "v3plus",
    )
    assert options.decoder_convs == ((3, 64),)
    assert json.loads(json.dumps(options.describe()))["output_stride"] == 8
    assert set(list_models()) == {"deeplab_v3", "deeplab_v3plus"}


@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [(4, (24, 48, 72)), (8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))],
)
def test_default_rates_keep_their_extent_in_the_image(output_stride, rates):
    made = create_model("deeplab_v3", output_stride=output_stride).architecture
    assert made.atrous_rates == rates
    kept = create_model("deeplab_v3", output_stride=output_stride, atrous_rates=[2, 4])
    assert kept.architecture.atrous_rates == (2, 4)


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
        ({"head": "asp"}, "unknown head 'asp'; did you mean 'aspp'? legal: aspp, pooling, plain"),
        ({"decoder": None}, "decoder=None is not legal; legal: none, v3plus"),
        ({"output_stride": 12}, "output_stride=12 is not legal; legal: 4, 8, 16, 32"),
        ({"output_stride": 0}, "legal: 4, 8, 16, 32"),
        ({"output_stride": "16"}, "output_stride='16' is not legal; legal: 4, 8, 16, 32"),
        ({"dtype": "float16"}, "legal: float32, bfloat16, float64"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"aspp_channels": 2.5}, "aspp_channels=2.5 must be a whole number"),
        ({"atrous_rates": (0, 6)}, "atrous_rates=(0, 6)"),
        ({"atrous_rates": (6, 6)}, "different whole numbers"),
        ({"decoder_convs": ((3,),)}, "pairs of kernel size and channels"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0 must be in [0, 1)"),
        ({"batch_norm_decay": 1.5}, "batch_norm_decay=1.5"),
        ({"depth_multiplier": 0.5}, "resnet_101_beta has no depth_multiplier"),
        ({"backbone": "mobilenet_v2", "depth_multiplier": 0.0}, "above 0"),
        ({"multi_grid": (1, 2)}, "must hold 3 rates"),
        ({"multi_grid": (0, 1, 2)}, "multi_grid=(0, 1, 2)"),
        ({"backbone": "mobilenet_v2", "multi_grid": (1, 2, 4)}, "needs a ResNet's block4"),
        ({"backbone": "resnet_50", "in_channels": 1}, "preprocessing='mean' is of RGB images"),
    ],
)
def test_illegal_combinations_are_refused_in_one_line(keywords, complaint):
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
