"""Draws the pictures of docs/tutorials/applications.md from the results of its commands.

usage: python docs/draw_results.py FOLDER [--output=docs/images] [NAME …]

FOLDER is the directory in which the commands ran. NAME is street, cells, objects, areas, background
or readme (default: all six).
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import deeplab_jax
from deeplab_jax.data.images import read_image
from deeplab_jax.inference import feathered, soft_mask
from deeplab_jax.visualize import overlay, write_picture

IMAGES = Path(__file__).parent / "images"
COLORS = {"car": "#800080", "person": "#008080"}
PAPER = 255
# Side of each picture in the row of backgrounds, and gap between two pictures, in pixels.
TILE, GAP = 176, 4


def first_rows(sheet: np.ndarray, rows: int, factor: float) -> np.ndarray:
    """Returns the titles, the first rows and the legend of a contact sheet.

    Args:
      sheet: contact sheet, uint8 [H, W, 3], as `contact_sheet` draws it.
      rows: number of rows to keep.
      factor: factor by which the result is resized.
    """
    # The pictures of the left column are separated by bands of white pixels.
    column = sheet[:, sheet.shape[1] // 6 : sheet.shape[1] // 3 - 8]
    filled = (column.min(axis=(1, 2)) < PAPER).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled, [0]])))
    bands = [band for band in edges.reshape(-1, 2) if np.ptp(band) > 40]
    kept = np.concatenate([sheet[: bands[rows - 1][1]], sheet[bands[-1][1] :]])
    return cv2.resize(kept, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def street(folder: Path) -> np.ndarray:
    """Returns the first rows of the contact sheet of the example on driving scenes."""
    return first_rows(read_image(folder / "runs" / "street" / "contact_sheet.png"), 3, 0.75)


def cells(folder: Path) -> np.ndarray:
    """Returns the first rows of the contact sheet of the example on medical images."""
    return first_rows(read_image(folder / "runs" / "cells" / "contact_sheet.png"), 2, 0.625)


def objects(folder: Path) -> np.ndarray:
    """Returns the image with boxes around objects, upsampled by a factor of 3."""
    boxes = read_image(folder / "objects.png")
    return cv2.resize(boxes, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)


def areas(folder: Path) -> np.ndarray:
    """Returns a plot of the fraction of each frame that cars and people cover."""
    with (folder / "areas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = sum(int(value) for key, value in rows[0].items() if key != "frame")
    figure = Figure(figsize=(7.2, 2.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, color in COLORS.items():
        axes.plot([100 * int(row[name]) / pixels for row in rows], color=color, label=name)
    axes.set_xlim(0, len(rows) - 1)
    axes.set_ylim(0)
    axes.set_xlabel("frame")
    axes.set_ylabel("fraction of the image, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def background(folder: Path) -> np.ndarray:
    """Returns the photograph, its soft mask and the three backgrounds side by side."""
    predictor = deeplab_jax.load(folder / "voc_model")
    photograph = skimage.data.astronaut()
    person = predictor.class_names.index("person")
    alpha = feathered(soft_mask(predictor.predict(photograph).probabilities, [person]), width=2)
    mask = np.repeat(np.rint(255 * alpha).astype(np.uint8)[..., None], 3, axis=2)
    others = [read_image(folder / f"{name}.png") for name in ("blurred", "elsewhere", "green")]
    gap = np.full((TILE, GAP, 3), PAPER, np.uint8)
    strip = []
    for picture in (photograph, mask, *others):
        strip += [cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA), gap]
    return np.concatenate(strip[:-1], axis=1)


def readme(folder: Path) -> np.ndarray:
    """Returns a photograph and its overlay beside two rows of the demo's contact sheet."""
    predictor = deeplab_jax.load(folder / "voc_model")
    photograph = skimage.data.chelsea()
    prediction = predictor.predict(photograph)
    left = [photograph, overlay(photograph, prediction.class_map, predictor.palette)]
    height = 2 * 240 + GAP
    size = (round(240 * photograph.shape[1] / photograph.shape[0]), 240)
    pictures = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in left]
    gap = np.full((GAP, size[0], 3), PAPER, np.uint8)
    column = np.concatenate([pictures[0], gap, pictures[1]])
    # Two rows of the sheet: image, truth and prediction.
    shapes = read_image(IMAGES / "demo.png")[28:676, 8:984]
    shapes = cv2.resize(shapes, (round(height * 976 / 648), height), interpolation=cv2.INTER_AREA)
    return np.concatenate([column, np.full((height, 3 * GAP, 3), PAPER, np.uint8), shapes], axis=1)


PICTURES: dict[str, Callable[[Path], np.ndarray]] = {
    made.__name__: made for made in (street, cells, objects, areas, background, readme)
}


def main() -> None:
    """Writes the chosen pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(PICTURES))
    parser.add_argument("--output", type=Path, default=IMAGES)
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(PICTURES):
        parser.error(f"no such picture: {', '.join(unknown)}; legal: {', '.join(PICTURES)}")
    for name in chosen.names:
        write_picture(chosen.output / f"{name}.png", PICTURES[name](chosen.folder))


if __name__ == "__main__":
    main()
