"""MobileNetV2 of Hugging Face's transformers, randomly initialised, gives the same logits here."""

import json
import warnings

import pytest
from pretrained.peers import assert_same_logits, minus_one_one, peer, randomize

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert

torch = peer("torch")
modeling = peer("transformers.models.mobilenet_v2.modeling_mobilenet_v2")
ODD, EVEN = (65, 97), (64, 96)
VOC_LIKE = {0: "background", 1: "cat", 2: "dog"}


def save(kind, folder, **configuration):
    """Writes a network as transformers publishes it and returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = modeling.MobileNetV2Config(**configuration)
        network = randomize(getattr(modeling, kind)(config))
        network.save_pretrained(folder)
    return network


@pytest.mark.parametrize(
    ("configuration", "sizes"),
    [
        ({"output_stride": 16, "id2label": VOC_LIKE}, (ODD, EVEN)),
        ({"output_stride": 8, "depth_multiplier": 0.35, "layer_norm_eps": 1e-2}, (EVEN,)),
        ({"output_stride": 16, "tf_padding": False, "num_labels": 21}, (EVEN,)),
    ],
)
def test_deeplab(configuration, sizes, tmp_path):
    network = save("MobileNetV2ForSemanticSegmentation", tmp_path, **configuration)
    conversion = assert_same_logits(
        tmp_path, lambda image: network(image).logits, minus_one_one, sizes, "scores"
    )
    if "id2label" in configuration:
        assert conversion.description.class_names == ("background", "cat", "dog")
    left = set(conversion.assignment.unused.values())
    assert left == {
        "it counts training batches",
        "the segmentation network does not use this layer",
    }


@pytest.mark.parametrize("multiplier", [1.0, 1.4])
def test_classifier(multiplier, tmp_path):
    network = save(
        "MobileNetV2ForImageClassification", tmp_path, num_labels=1001, depth_multiplier=multiplier
    )
    conversion = assert_same_logits(
        tmp_path, lambda image: network(image).logits, minus_one_one, (EVEN,)
    )
    assert conversion.description.class_names[0] == "background"


def test_without_a_configuration_the_published_network_is_assumed(tmp_path):
    network = save("MobileNetV2ForSemanticSegmentation", tmp_path, output_stride=16)
    (tmp_path / "config.json").unlink()
    source = tmp_path / "model.safetensors"
    assert_same_logits(source, lambda image: network(image).logits, minus_one_one, (ODD,), "scores")


def test_unsupported_configurations_are_refused(tmp_path):
    save("MobileNetV2ForSemanticSegmentation", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "gelu"}))
    with pytest.raises(DeepLabError, match=r"hidden_act in config\.json is 'gelu'"):
        convert(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(DeepLabError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        convert(tmp_path)
