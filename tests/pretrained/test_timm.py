"""timm's classifiers, randomly initialised there, give the same logits here."""

import dataclasses
import json

import pytest
from pretrained.peers import assert_same_logits, mean_std, minus_one_one, peer, randomize

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert

peer("torch")
timm = peer("timm")
save_file = peer("safetensors.torch").save_file
ODD, EVEN = (65, 97), (64, 96)
slow = pytest.mark.slow


def save(name, folder, configured=True):
    """Writes a network as timm publishes it and returns it."""
    network = randomize(timm.create_model(name, pretrained=False))
    save_file(network.state_dict(), folder / "model.safetensors")
    if configured:
        published = {"mean": network.default_cfg["mean"], "std": network.default_cfg["std"]}
        configuration = {"architecture": name, "pretrained_cfg": published}
        (folder / "config.json").write_text(json.dumps(configuration))
    return network


@pytest.mark.parametrize(
    ("name", "backbone", "normalize"),
    [
        ("resnet18", "resnet_18", mean_std),
        pytest.param("resnet50", "resnet_50", mean_std, marks=slow),
        pytest.param("resnet101", "resnet_101", mean_std, marks=slow),
        pytest.param("resnet50s", "resnet_50_beta", mean_std, marks=slow),
        ("xception41", "xception_41", minus_one_one),
        pytest.param("xception65", "xception_65", minus_one_one, marks=slow),
        pytest.param("xception71", "xception_71", minus_one_one, marks=slow),
        ("mobilenetv2_100", "mobilenet_v2", mean_std),
        pytest.param("mobilenetv2_050", "mobilenet_v2", mean_std, marks=slow),
        pytest.param("mobilenetv2_140", "mobilenet_v2", mean_std, marks=slow),
        pytest.param("mobilenetv3_large_100", "mobilenet_v3_large", mean_std, marks=slow),
        ("mobilenetv3_small_100", "mobilenet_v3_small", mean_std),
        pytest.param("tf_mobilenetv3_large_100", "mobilenet_v3_large", minus_one_one, marks=slow),
        ("tf_mobilenetv3_small_100", "mobilenet_v3_small", minus_one_one),
        pytest.param("tf_mobilenetv3_small_075", "mobilenet_v3_small", minus_one_one, marks=slow),
        pytest.param("mobilenetv3_large_075", "mobilenet_v3_large", mean_std, marks=slow),
        pytest.param("convnext_atto", "timm/convnext_atto", mean_std, marks=slow),
        pytest.param("convnextv2_atto", "timm/convnextv2_atto", mean_std, marks=slow),
        pytest.param("convnext_tiny", "timm/convnext_tiny", mean_std, marks=slow),
        pytest.param("resnet34", "timm/resnet34", mean_std, marks=slow),
        pytest.param("resnet18d", "timm/resnet18d", mean_std, marks=slow),
        pytest.param("resnet50d", "timm/resnet50d", mean_std, marks=slow),
        pytest.param("resnext50_32x4d", "timm/resnext50_32x4d", mean_std, marks=slow),
        pytest.param("regnety_002", "timm/regnety_002", mean_std, marks=slow),
        *(
            pytest.param(name, f"timm/{name}", normalize, marks=slow)
            for name, normalize in (
                ("efficientnet_b0", mean_std),
                ("tf_efficientnet_b2", mean_std),
                ("tf_efficientnet_lite0", minus_one_one),
                ("efficientnetv2_s", mean_std),
                ("mobilenetv4_conv_small", mean_std),
                ("mobilenetv4_conv_small_050", minus_one_one),
            )
        ),
    ],
)
def test_classifiers(name, backbone, normalize, tmp_path):
    network = save(name, tmp_path)
    conversion = assert_same_logits(tmp_path, network, normalize, (ODD, EVEN))
    assert conversion.description.overrides["backbone"] == backbone
    assert conversion.description.class_names[281] == "tabby"
    # ConvNeXt has no batch normalization.
    assert set(conversion.assignment.unused.values()) <= {"it counts training batches"}


@pytest.mark.parametrize("name", ["resnet26d", "seresnet50", "mnasnet_100", "mobilenetv2_120d"])
def test_relatives_are_not_taken_for_what_they_are_not(name, tmp_path):
    save(name, tmp_path)
    with pytest.raises(DeepLabError, match=r"contains no known network|does not fit the network"):
        convert(tmp_path)


def test_unknown_normalisation_is_refused(tmp_path):
    save("mobilenetv3_small_100", tmp_path)
    published = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    configuration = {"architecture": "mobilenetv3_small_100", "pretrained_cfg": published}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    with pytest.raises(DeepLabError, match=r"normalized by mean \[0, 0, 0\]"):
        convert(tmp_path)


def test_without_a_configuration(tmp_path):
    network = save("mobilenetv3_small_100", tmp_path, configured=False)
    source = tmp_path / "model.safetensors"
    conversion = assert_same_logits(source, network, mean_std, (EVEN,))
    # The keywords of the ported network, of which the arrays have the same names and shapes.
    other = conversion.if_tensorflow
    folder = tmp_path / "ported"
    folder.mkdir()
    save("tf_mobilenetv3_small_100", folder)
    ported = convert(folder).description.create_model().architecture
    found = convert(source, overrides=other).description.create_model().architecture
    # The default of the backbone is the same epsilon.
    assert dataclasses.replace(found, batch_norm_epsilon=None) == ported
