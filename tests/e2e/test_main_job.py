"""Prepare, train, evaluate, predict: from a workdir alone, through the commands."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from deeplab_jax.training.writers import read_rows


def test_training_leaves_numbers_pictures_and_a_model(trained):
    rows = read_rows(trained)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "validation_mean_iou" in row] == [6, 12]
    for name in ("curves.png", "contact_sheet.png"):
        with PIL.Image.open(trained / name) as picture:
            assert min(picture.size) > 100
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest[0]["mesh"] == {"data": 1, "spatial": 1}
    assert manifest[0]["versions"]["jax"]
    assert json.loads((trained / "model.json").read_text())["class_names"][0] == "background"


def test_evaluate_needs_only_the_workdir(commands, trained, tmp_path):
    words = (
        "evaluate",
        f"--model={trained}",
        "--dataset=shapes",
        f"--data_dir={commands.data_dir}",
    )
    numbers = []
    # JAX is loaded already in this process.
    for batch_size, evaluate in ((2, commands.run), (5, commands.run_here)):
        output = tmp_path / str(batch_size)
        evaluate(*words, f"--batch_size={batch_size}", f"--output={output}", "--split=val")
        numbers.append(json.loads((output / "metrics.json").read_text()))
    assert numbers[0]["num_images"] == 7
    assert np.sum(numbers[0]["confusion_matrix"]) <= 7 * 48 * 48
    assert numbers[0]["confusion_matrix"] == numbers[1]["confusion_matrix"]


def test_predict_writes_a_mask_of_the_input_size(commands, trained, tmp_path):
    picture = tmp_path / "in" / "deep" / "one.jpg"
    picture.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(picture)
    commands.run("predict", f"--model={trained}", f"--output={tmp_path / 'out'}", tmp_path / "in")
    with PIL.Image.open(tmp_path / "out" / "deep" / "one.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (61, 37)
        assert np.asarray(mask).max() < 6
    assert (tmp_path / "out" / "deep" / "one_overlay.png").exists()


def test_a_finished_run_only_evaluates_again(commands, trained, tmp_path):
    # A copy: it writes one more row and one more manifest.
    workdir = shutil.copytree(trained, tmp_path / "run")
    finished = commands.run(*commands.train_words(workdir))
    assert "all 12 steps are done already" in finished.stderr
    assert len(json.loads((workdir / "manifest.json").read_text())) == 2


@pytest.mark.slow
def test_a_network_without_batch_normalisation_trains_and_resumes(commands, tmp_path):
    """DeepLab v1 on VGG-16 has no statistics: an empty collection is saved and read again."""
    # Keywords of the recipe's network that this one does not read.
    unread = ("depth_multiplier", "atrous_rates", "aspp_channels", "low_level_channels")
    unread += ("decoder_convs", "separable", "batch_norm_decay")
    words = commands.train_words(
        tmp_path / "run",
        "model.architecture=deeplab_v1",
        "model.backbone=vgg_16",
        *(f"model.{name}=None" for name in unread),
        "training.num_steps=2",
    )
    commands.run(*words)
    assert "all 2 steps are done already" in commands.run(*words).stderr
