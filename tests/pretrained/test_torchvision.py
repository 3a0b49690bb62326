"""torchvision's networks, randomly initialised there, give the same logits here."""

import pytest
from pretrained.peers import assert_same_logits, mean_std, peer, randomize

torch = peer("torch")
segmentation = peer("torchvision.models.segmentation")
ODD, EVEN = (65, 97), (64, 96)


def save(network, folder, name="network.pth"):
    torch.save(network.state_dict(), folder / name)
    return folder / name


def make(name, auxiliary):
    network = getattr(segmentation, name)
    return randomize(network(weights=None, weights_backbone=None, aux_loss=auxiliary))


@pytest.mark.parametrize(
    ("name", "auxiliary"),
    [
        ("deeplabv3_mobilenet_v3_large", False),
        pytest.param("deeplabv3_resnet50", True, marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet101", False, marks=pytest.mark.slow),
    ],
)
def test_segmentation_networks(name, auxiliary, tmp_path):
    network = make(name, auxiliary)
    source = save(network, tmp_path)
    conversion = assert_same_logits(
        source, lambda image: network(image)["out"], mean_std, (ODD, EVEN)
    )
    assert conversion.description.architecture == f"torchvision/{name}"
    assert conversion.description.class_names[15] == "person"
    assert set(conversion.assignment.unused.values()) == {"it counts training batches"}


@pytest.mark.parametrize(
    "name",
    [
        "deeplabv3_mobilenet_v3_large",
        pytest.param("deeplabv3_resnet50", marks=pytest.mark.slow),
    ],
)
def test_auxiliary_heads(name, tmp_path):
    network = make(name, True)
    source = save(network, tmp_path)
    assert_same_logits(source, lambda image: network(image)["aux"], mean_std, (EVEN,), "auxiliary")
