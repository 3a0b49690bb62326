"""Scenes of five 16-bit bands, drawn from the built-in shapes, with a class that RGB hides."""

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import tifffile

from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.labels import VOID_LABEL

CLASSES = ("background", "shape", "hidden")
HIDDEN = CLASSES.index("hidden")
# Seed of the outlines of the hidden class, and which of them are drawn: discs and squares. They
# are independent of the visible shapes.
HIDDEN_SEED, HIDDEN_OUTLINES = 1000, (1, 2)


def draw_bands(split: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one scene: uint16 [size, size, 5] and label uint8 [size, size].

    Bands 1 to 3 show the shapes of one scene. Bands 4 and 5 show the outlines of another one, as
    near infrared shows what visible light does not: 4 is brighter and 5 darker there.
    """
    picture, shapes = draw_scene(0, split, index, size)
    _, outlines = draw_scene(HIDDEN_SEED, split, index, size)
    random = np.random.default_rng((7, split, index))
    hidden = np.isin(outlines, HIDDEN_OUTLINES)
    base = random.uniform(4000, 9000) + 1500 * picture.mean(-1) / 255
    infrared = np.stack([base + 2500 * hidden, base - 2500 * hidden], axis=-1)
    infrared += random.normal(0, 400, infrared.shape)
    image = np.dstack([picture.astype(np.float64) * 40 + 300, infrared])
    label = np.where((shapes > 0) & (shapes != VOID_LABEL), 1, shapes)
    border = cv2.dilate(hidden.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    label = np.where(hidden, HIDDEN, np.where(border, VOID_LABEL, label))
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16), label.astype(np.uint8)


def write_scenes(source: Path, num_train: int, num_val: int, size: int = 64) -> Path:
    """Writes `images/`, TIFFs of five bands, `masks/` and `classes.txt`; returns the folder."""
    for split, number in (("train", num_train), ("val", num_val)):
        for kind in ("images", "masks"):
            (source / kind / split).mkdir(parents=True)
        for index in range(number):
            image, label = draw_bands(split == "val", index, size)
            write_tiff(source / f"images/{split}/{index:03}.tif", image)
            PIL.Image.fromarray(label).save(source / f"masks/{split}/{index:03}.png")
    (source / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return source


def write_tiff(path: Path, image: np.ndarray, **options: object) -> Path:
    """Writes [H, W, C] as one page of C samples, as geographic software does."""
    options = {"photometric": "minisblack", "planarconfig": "contig", **options}
    tifffile.imwrite(path, image, **options)
    return path
