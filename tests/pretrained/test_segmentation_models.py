"""segmentation_models.pytorch's networks, randomly initialised there, give the same logits here."""

import pytest
from pretrained.codebases import MULTIPLES
from pretrained.peers import assert_same_logits, mean_std, peer, randomize

torch = peer("torch")
smp = peer("segmentation_models_pytorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]
NAME = "segmentation_models.pytorch"


def make(kind, encoder, **options):
    return randomize(getattr(smp, kind)(encoder, encoder_weights=None, classes=5, **options))


@pytest.mark.parametrize("kind", ["DeepLabV3", "DeepLabV3Plus"])
@pytest.mark.parametrize(
    ("encoder", "backbone"),
    [
        ("resnet18", "resnet_18"),
        ("resnet34", "timm/resnet34"),
        ("resnet50", "resnet_50"),
        ("resnet101", "resnet_101"),
        ("resnet152", "timm/resnet152"),
        ("resnext50_32x4d", "timm/resnext50_32x4d"),
        ("mobilenet_v2", "mobilenet_v2"),
        ("tu-resnet18", "resnet_18"),
        ("tu-resnet50", "resnet_50"),
        ("tu-resnet50d", "timm/resnet50d"),
        ("tu-convnext_tiny", "timm/convnext_tiny"),
        ("tu-convnextv2_atto", "timm/convnextv2_atto"),
        ("tu-regnety_002", "timm/regnety_002"),
        ("tu-efficientnet_b0", "timm/efficientnet_b0"),
        ("efficientnet-b1", "timm/tf_efficientnet_b1"),
        ("timm-efficientnet-b0", "timm/efficientnet_b0"),
        ("timm-tf_efficientnet_lite0", "timm/efficientnet_lite0"),
    ],
)
def test_encoders(kind, encoder, backbone, tmp_path):
    network = make(kind, encoder)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    conversion = assert_same_logits(tmp_path / "model.pth", network, mean_std, MULTIPLES)
    assert conversion.convention == NAME
    assert conversion.description.overrides["backbone"] == backbone
    unused = set(conversion.assignment.unused.values()) - {"it counts training batches"}
    assert unused <= {"the segmentation network does not use this layer"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("DeepLabV3", {"encoder_output_stride": 16, "decoder_aspp_separable": True}),
        ("DeepLabV3Plus", {"encoder_output_stride": 8, "decoder_atrous_rates": (3, 6, 9)}),
        ("DeepLabV3Plus", {"decoder_channels": 128, "aux_params": {"classes": 3}}),
    ],
)
def test_folders_of_save_pretrained(kind, options, tmp_path):
    network = make(kind, "resnet18", **options)
    network.save_pretrained(tmp_path)

    def logits(image):
        found = network(image)
        return found[0] if isinstance(found, tuple) else found

    conversion = assert_same_logits(tmp_path, logits, mean_std, MULTIPLES)
    assert conversion.convention == NAME
