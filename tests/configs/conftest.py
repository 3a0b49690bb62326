"""Tiny prepared datasets from sources in the layouts of real datasets."""

import functools
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deeplab_jax.data.builders.registry import BUILDERS
from deeplab_jax.data.preparation import prepare
from deeplab_jax.reporter import Reporter

SIZE = (60, 80)


def write_pair(image: Path, mask: Path, seed: int, values: list[int]) -> None:
    """Writes noise in two brightnesses and a mask of the two regions, otherwise void."""
    random = np.random.default_rng(seed)
    bright = np.indices(SIZE)[1] > random.integers(20, 60)
    pixels = random.integers(0, 90, (*SIZE, 3)) + 150 * bright[..., None]
    label = np.where(bright, *values[:2])
    label[:4] = values[2]
    for path, array in ((image, pixels), (mask, label)):
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(array.astype(np.uint8)).save(path)


def write_voc(source: Path) -> None:
    """Two training images, two validation images, and two with annotations of SBD."""
    for seed, stem in enumerate("abcdef"):
        image = source / f"JPEGImages/{stem}.jpg"
        # A chair, one of the classes that come twice, in every other image.
        values = [9 if seed % 2 else 15, 0, 255]
        write_pair(image, source / f"SegmentationClassAug/{stem}.png", seed, values)
        if stem < "e":
            write_pair(image, source / f"SegmentationClass/{stem}.png", seed, values)
    lists = source / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\nd\n")


def write_cityscapes(source: Path) -> None:
    """Two training images of one city and two validation images of another."""
    for seed, (split, city) in enumerate([("train", "ulm"), ("val", "bonn")] * 2):
        frame = f"{city}_000000_{seed:06}"
        write_pair(
            source / f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png",
            source / f"gtFine/{split}/{city}/{frame}_gtFine_labelIds.png",
            seed,
            [7, 26, 4],
        )


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with `voc_segmentation` and `cityscapes` of a few small images."""
    data_dir = tmp_path_factory.mktemp("prepared")
    for name, write in (("voc_segmentation", write_voc), ("cityscapes", write_cityscapes)):
        source = tmp_path_factory.mktemp(name)
        write(source)
        make = functools.partial(BUILDERS[name], source=source, data_dir=data_dir)
        prepare(make, reporter=Reporter())
    return data_dir
