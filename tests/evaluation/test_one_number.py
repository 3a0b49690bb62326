"""`evaluate` counts the masks that `predict` writes, through the real commands."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from stand_ins import RedReader

from deeplab_jax.data import ArrayDataset, evaluation_batches
from deeplab_jax.data.pipeline import evaluation_order
from deeplab_jax.evaluation import Evaluator
from deeplab_jax.files import write_text

NETWORKS = {
    "257": "deeplabv3_mnv2_dm05_voc_257_float.tflite",
    "513": "deeplabv3_mnv2_voc_513_uint8.tflite",
}
NUM_IMAGES = 50


# Flags of both commands, of `evaluate` alone, and the number of images.
STRATEGIES = {
    "whole": ((), ("--batch_size=4",), NUM_IMAGES),
    "tiles": (("--tile=257x257",), ("--batch_size=4",), NUM_IMAGES),
    "fused": (("--scales=0.5,1", "--flip"), ("--batch_size=4",), NUM_IMAGES),
    "crf": (("--crf",), ("--batch_size=3",), 4),
    "8 devices": ((), ("--batch_size=8",), 12),
}


def command(*words, devices=1):
    """Runs `deeplab-jax` on so many virtual devices."""
    words = [sys.executable, "-m", "deeplab_jax.cli.main", *map(str, words)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    finished = subprocess.run(words, capture_output=True, text=True, timeout=800, env=environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def counted(masks, truths, num_classes):
    """Returns the confusion matrix of palette PNGs, truth by prediction, in NumPy alone."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for mask, truth in zip(masks, truths, strict=True):
        found, label = np.asarray(Image.open(mask)), np.asarray(Image.open(truth))
        known = label != 255
        np.add.at(counts, (label[known], found[known]), 1)
    return counts


@pytest.fixture(scope="module")
def voc(shared, tmp_path_factory):
    """The first validation images as a VOC folder of their own, prepared."""
    source, folder = shared / "data" / "voc2012", tmp_path_factory.mktemp("voc")
    lists = source / "ImageSets" / "Segmentation"
    names = (lists / "val.txt").read_text().split()[:NUM_IMAGES]
    for name in ("JPEGImages", "SegmentationClass"):
        (folder / name).symlink_to(source / name)
    write_text(folder / "ImageSets" / "Segmentation" / "val.txt", "\n".join(names) + "\n")
    write_text(folder / "ImageSets" / "Segmentation" / "train.txt", names[0] + "\n")
    command("prepare", "voc_segmentation", f"--source={folder}", f"--data_dir={folder / 'data'}")
    return folder, names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "strategy"), [*(("257", strategy) for strategy in STRATEGIES), ("513", "whole")]
)
def test_images_of_mixed_sizes(voc, shared, tmp_path, network, strategy):
    folder, names = voc
    flags, own_flags, limit = STRATEGIES[strategy]
    names = names[:limit]
    command("convert", shared / "weights" / NETWORKS[network], f"--output={tmp_path / 'model'}")
    given = [f"--model={tmp_path / 'model'}", *flags]
    data = ["--dataset=voc_segmentation", "--split=val", f"--data_dir={folder / 'data'}"]
    command(
        "evaluate",
        *given,
        *data,
        *own_flags,
        f"--limit={limit}",
        f"--output={tmp_path / 'report'}",
        devices=8 if strategy == "8 devices" else 1,
    )
    images = [folder / "JPEGImages" / f"{name}.jpg" for name in names]
    command("predict", *given, f"--output={tmp_path / 'masks'}", *images)
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    masks = [tmp_path / "masks" / f"{name}.png" for name in names]
    truths = [folder / "SegmentationClass" / f"{name}.png" for name in names]
    counts = counted(masks, truths, 21)
    moved = np.abs(counts - np.array(metrics["confusion_matrix"])).sum() // 2
    sizes = metrics["settings"]["padded_sizes"]
    print(
        f"\n{network}, {strategy}: {len(names)} images, {counts.sum()} pixels, "
        f"{moved} counted differently, mean IoU {metrics['mean_iou']:.4f}, canvases {sizes}"
    )
    assert moved == 0
    assert sizes is None or len(sizes) <= 8


def test_images_of_one_canvas_share_batches():
    sizes = np.array([(17, 33), (33, 17), (17, 33), (17, 33), (17, 17)])
    order = evaluation_order(sizes, batch_size=2)
    assert order == [
        (4, (17, 17)),
        (-1, (17, 17)),
        (0, (17, 33)),
        (2, (17, 33)),
        (3, (17, 33)),
        (-1, (17, 33)),
        (1, (33, 17)),
        (-1, (33, 17)),
    ]
    images = [np.full((*size, 3), index, np.uint8) for index, size in enumerate(sizes)]
    dataset = ArrayDataset(images, [image[..., 0] % 2 for image in images], ["a", "b"])
    hosts = [
        list(evaluation_batches(dataset, sizes, batch_size=2, host=host, num_hosts=2))
        for host in range(2)
    ]
    # Both hosts run the same shapes in the same order, and each image is on exactly one of them.
    for one, other in zip(*hosts, strict=True):
        assert one["image"].shape == other["image"].shape
    seen = sorted(int(index) for batches in hosts for batch in batches for index in batch["index"])
    assert seen == [-1, -1, -1, 0, 1, 2, 3, 4]


def test_images_of_one_size_are_padded_as_little_as_possible():
    images = [np.zeros((90, 150, 3), np.uint8)] * 3
    dataset = ArrayDataset(images, [image[..., 0] for image in images], ["a", "b", "c", "d"])
    # The rule for images of any size would give 97 × 193.
    assert Evaluator(RedReader(), dataset).size == (97, 161)


def test_a_given_size_is_the_size_of_every_image():
    images = [np.zeros((20, 40, 3), np.uint8), np.ones((50, 10, 3), np.uint8)]
    dataset = ArrayDataset(images, [image[..., 0] for image in images], ["a", "b", "c", "d"])
    assert Evaluator(RedReader(), dataset, size=(60, 60)).size == (65, 65)
    assert Evaluator(RedReader(), dataset).size is None
