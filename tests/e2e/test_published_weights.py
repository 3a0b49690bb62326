"""A published file through the real commands: convert, predict, fine-tune."""

import cv2
import jax
import numpy as np
import pytest
from PIL import Image
from pretrained.torchvision_names import write_classifier

from deeplab_jax.checkpointing import read_model

WEIGHTS = "deeplabv3_mnv2_dm05_voc_257_float.tflite"


@pytest.fixture(scope="module")
def converted(commands, shared, tmp_path_factory):
    """The model directory, and what the command said."""
    output = tmp_path_factory.mktemp("published") / "voc"
    done = commands.run("convert", shared / "weights" / WEIGHTS, f"--output={output}")
    return output, done.stdout


def test_every_array_is_accounted_for(converted):
    _, said = converted
    assert "110 arrays are used: backbone 102, classifier 2, pooling 6" in said
    assert "no array is unused" in said


def test_the_golden_mask(commands, converted, shared, tmp_path):
    golden = shared / "data" / "golden"
    commands.run(
        "predict",
        f"--model={converted[0]}",
        f"--output={tmp_path}",
        golden / "segmentation_input_257.jpg",
    )
    with Image.open(tmp_path / "segmentation_input_257.png") as mask:
        found = np.array(mask)
    path = str(golden / "segmentation_golden_257_times10.png")
    np.testing.assert_array_equal(found * 10, cv2.imread(path, cv2.IMREAD_UNCHANGED))


@pytest.mark.slow
def test_fine_tuning_on_other_classes(commands, converted, tmp_path, read_lines):
    changes = (
        "model.architecture=deeplab_v3",
        "model.depth_multiplier=0.5",
        "model.decoder=None",
        "model.decoder_convs=None",
        "model.separable=None",
        "model.aspp_channels=256",
        "model.atrous_rates=None",
        "model.image_pooling=None",
        "model.low_level_channels=None",
        "training.num_steps=2",
        f"training.init_from={converted[0]}",
    )
    done = commands.run(*commands.train_words(tmp_path / "run", *changes))
    said = read_lines(done.stderr)
    assert any("contain 54 batch normalizations folded" in line for line in said)
    afresh = [line for line in said if "is initialized randomly" in line]
    assert len(afresh) == 2
    assert all("params/classifier" in line for line in afresh)


def test_names_of_compiled_modules(commands, tmp_path):
    """`torch.compile` puts a part into names, as several GPUs do."""
    variables = []
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        source, output = tmp_path / f"{prefix}safetensors", tmp_path / prefix
        write_classifier(source, prefix)
        done = commands.run_here("convert", source, f"--output={output}")
        assert "no array is unused" in done.stdout
        variables.append(jax.tree.leaves(read_model(output).variables))
    for others in variables[1:]:
        for expected, found in zip(variables[0], others, strict=True):
            np.testing.assert_array_equal(found, expected)
