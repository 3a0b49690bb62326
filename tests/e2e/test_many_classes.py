"""300 classes through the commands: 16-bit masks in, trained, measured, 16-bit masks out."""

import json

import numpy as np
import PIL.Image
import pytest
from tiny_recipe import write_tiny_recipe

COUNT, VOID = 300, 65535
SIZE = (48, 64)


def write_folder(source):
    """Writes images with masks of class 299; in val one is of class 43, which is 299 % 256."""
    random = np.random.default_rng(0)
    (source / "images").mkdir(parents=True)
    (source / "classes.txt").write_text("\n".join(f"class {index}" for index in range(COUNT)))
    truths = {}
    for split, classes in {"train": (299, 299, 299, 299), "val": (43, 299, 255)}.items():
        for folder in ("images", "masks"):
            (source / folder / split).mkdir(parents=True)
        for number, one in enumerate(classes):
            image = random.integers(0, 256, (*SIZE, 3), np.uint8)
            mask = np.full(SIZE, one, np.uint16)
            mask[:5], mask[5:7, :3] = VOID, 255
            PIL.Image.fromarray(image).save(source / f"images/{split}/{number}.png")
            PIL.Image.fromarray(mask).save(source / f"masks/{split}/{number}.png")
            truths[split, str(number)] = mask
    return truths


# Labels, losses, metrics, inference and export of many classes have quick tests of their own.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(commands, tmp_path_factory):
    """Prepares, trains, evaluates and predicts; returns the folder, the truths and the output."""
    folder = tmp_path_factory.mktemp("many")
    truths = write_folder(folder / "source")
    config = write_tiny_recipe(
        folder / "tiny.py",
        data__name="folder",
        training__num_steps=2,
        training__batch_size=4,
        training__ema_decay=0.0,
        schedule__base_learning_rate=0.5,
        schedule__warmup_steps=0,
        augmentation__max_class_fraction=0.9,
    )
    data_dir = f"--data_dir={folder / 'data'}"
    said = commands.run("prepare", "folder", f"--source={folder / 'source'}", data_dir, "--report")
    run = f"--config={config}", f"--config.data.data_dir={folder / 'data'}"
    commands.run("train", *run, f"--workdir={folder / 'run'}")
    model = f"--model={folder / 'run'}"
    output = f"--output={folder / 'numbers'}"
    commands.run("evaluate", model, "--dataset=folder", data_dir, "--split=val", output)
    images = folder / "source/images/val"
    commands.run("predict", model, f"--output={folder / 'masks'}", images)
    return folder, truths, said


def test_prepare_names_what_255_means(work):
    _, _, said = work
    assert "'class 255'" in said.stderr + said.stdout
    assert "65535" in said.stderr + said.stdout


def test_predictions_are_16_bit_masks_and_colour_pictures(work):
    folder, _, _ = work
    names = sorted(path.name for path in (folder / "masks").iterdir())
    assert names == sorted(
        f"{number}{kind}.png" for number in range(3) for kind in ("", "_colors", "_overlay")
    )
    palette = json.loads((folder / "run/model.json").read_text())["palette"]
    assert len({tuple(color) for color in palette}) == COUNT
    for number in range(3):
        mask = np.asarray(PIL.Image.open(folder / f"masks/{number}.png"))
        assert mask.dtype == np.uint16
        assert mask.shape == SIZE
        colors = np.asarray(PIL.Image.open(folder / f"masks/{number}_colors.png"))
        assert np.array_equal(colors, np.array(palette, np.uint8)[mask])


def test_metrics_counted_again_from_the_masks(work):
    folder, truths, _ = work
    counts = np.zeros((COUNT, COUNT), np.int64)
    for number in range(3):
        truth = truths["val", str(number)]
        mask = np.asarray(PIL.Image.open(folder / f"masks/{number}.png")).astype(int)
        np.add.at(counts, (truth[truth != VOID], mask[truth != VOID]), 1)
    metrics = json.loads((folder / "numbers/metrics.json").read_text())
    assert np.array_equal(metrics["confusion_matrix"], counts)
    # The network has learned the one class it saw. 43 is not right for being 299 modulo 256.
    assert counts[43, 299] > 0.9 * counts[43].sum() > 0
    assert metrics["per_class_iou"]["class 43"] == 0
    right = np.trace(counts)
    assert metrics["pixel_accuracy"] == right / counts.sum()
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    present = union > 0
    expected = (np.diag(counts)[present] / union[present]).mean()
    np.testing.assert_allclose(metrics["mean_iou"], expected, rtol=1e-12)
