"""torchvision's networks, randomly initialised there, give the same logits here."""

import pytest
from pretrained.peers import assert_same_logits, mean_std, peer, randomize

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert

torch = peer("torch")
models = peer("torchvision.models")
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


def test_an_auxiliary_head_with_other_classes_is_not_used(tmp_path):
    network = make("deeplabv3_mobilenet_v3_large", True)
    network.classifier[4] = torch.nn.Conv2d(256, 5, 1)
    conversion = convert(save(network, tmp_path))
    assert conversion.description.overrides["num_classes"] == 5
    assert not conversion.description.overrides["aux_head"]
    assert "has other classes" in conversion.assignment.unused["aux_classifier.4.weight"]


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


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("resnet18", "resnet_18"),
        pytest.param("resnet50", "resnet_50", marks=pytest.mark.slow),
        pytest.param("resnet101", "resnet_101", marks=pytest.mark.slow),
        ("mobilenet_v2", "mobilenet_v2"),
        pytest.param("mobilenet_v3_large", "mobilenet_v3_large", marks=pytest.mark.slow),
        ("mobilenet_v3_small", "mobilenet_v3_small"),
    ],
)
def test_classifiers(name, backbone, tmp_path):
    network = randomize(getattr(models, name)(weights=None))
    conversion = assert_same_logits(save(network, tmp_path), network, mean_std, (ODD, EVEN))
    assert conversion.description.overrides["backbone"] == backbone
    assert conversion.description.class_names[281] == "tabby"


class DenseVGG(torch.nn.Module):
    """torchvision's VGG-16 as DeepLab v1 began from it: 3×3 poolings, fc6 and fc7 everywhere."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        functional, hidden = torch.nn.functional, image
        poolings = iter((2, 2, 2, 1, 1))
        for number, layer in enumerate(self.network.features):
            if isinstance(layer, torch.nn.MaxPool2d):
                hidden = functional.max_pool2d(hidden, 3, next(poolings), 1)
            elif isinstance(layer, torch.nn.Conv2d):
                rate = 1 if number < 24 else 2
                hidden = functional.conv2d(hidden, layer.weight, layer.bias, 1, rate, rate)
            else:
                hidden = layer(hidden)
        hidden = functional.avg_pool2d(hidden, 3, 1, 1)
        fc6, fc7, fc8 = (self.network.classifier[n] for n in (0, 3, 6))
        kernel = fc6.weight.reshape(-1, 512, 7, 7)
        hidden = functional.conv2d(hidden, kernel, fc6.bias, 1, 12, 4).relu()
        for layer in (fc7, fc8):
            hidden = functional.conv2d(hidden, layer.weight[..., None, None], layer.bias)
            hidden = hidden if layer is fc8 else hidden.relu()
        return functional.interpolate(hidden, image.shape[2:], mode="bilinear", align_corners=True)


@pytest.mark.slow
def test_vgg_becomes_the_network_that_v1_began_from(tmp_path):
    network = randomize(models.vgg16(weights=None))
    conversion = assert_same_logits(
        save(network, tmp_path), DenseVGG(network), mean_std, ((33, 41),)
    )
    assert conversion.description.architecture == "deeplab_v1"
    assert not conversion.assignment.unused


@pytest.mark.parametrize("name", ["wide_resnet50_2", "shufflenet_v2_x0_5"])
def test_relatives_are_not_taken_for_what_they_are_not(name, tmp_path):
    network = getattr(models, name)(weights=None)
    with pytest.raises(DeepLabError, match=r"contains no known network|does not fit the network"):
        convert(save(network, tmp_path))
