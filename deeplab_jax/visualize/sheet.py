"""Contact sheets of images, ground truth, predictions, training examples and uncertainties."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_jax.labels import VOID_COLOR, void_label
from deeplab_jax.visualize.class_maps import (
    FONT_SIZE,
    INK,
    PAPER,
    ROW,
    Color,
    colorize,
    displayed,
    legend_strip,
)

TITLES = ("image", "truth", "prediction")
MARGIN = 8
# Maximum height of a picture, as a multiple of the width of its cell. Pictures of higher images,
# such as scans of long objects, are narrower than their cell.
MAX_HEIGHT = 8


class Panel(NamedTuple):
    """One row of a contact sheet.

    Attributes:
      image: uint8 or uint16 [H, W, C].
      truth: label map, uint8 or uint16 [H, W].
      prediction: predicted class map, integers [H, W].
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def contact_sheet(
    panels: Sequence[Panel],
    class_names: Sequence[str],
    palette: Sequence[Color],
    cell_width: int = 320,
) -> np.ndarray:
    """Draws a row with image, truth and prediction for each panel, and a legend of the classes.

    Args:
      panels: rows of the sheet, at least one. Each image is resized to the width of a cell. Images
        that are more than eight times as high as wide are resized to the height 8 · cell_width.
      class_names: name of each class.
      palette: color of each class, RGB 0..255.
      cell_width: width of each image on the sheet, in pixels (default: 320).

    Returns:
      uint8 [height, width, 3].
    """
    strips = []
    for image, *class_maps in panels:
        colors = [colorize(class_map, palette) for class_map in class_maps]
        strips.append(_strip(image, colors, cell_width))
    width = strips[0].shape[1]
    parts = [_titles(TITLES, width, cell_width), *strips]
    parts.append(legend_strip(_occurring(panels, class_names, palette), width))
    return np.concatenate(parts)


def example_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    class_names: Sequence[str],
    palette: Sequence[Color],
    columns: int = 4,
) -> np.ndarray:
    """Draws a grid of training examples, each image above its label, and a legend of the classes.

    Args:
      images: images of equal size, uint8 or uint16 [H, W, C]; at least one.
      labels: label maps, integers [H, W].
      class_names: name of each class.
      palette: color of each class, RGB 0..255.
      columns: maximum number of examples per row (default: 4).

    Returns:
      uint8 [height, width, 3].
    """
    cells = [
        np.concatenate([displayed(image), colorize(label, palette)])
        for image, label in zip(images, labels, strict=True)
    ]
    columns = min(columns, len(cells))
    cells += [np.full_like(cells[0], PAPER)] * (-len(cells) % columns)
    padded = [
        np.pad(cell, ((0, MARGIN), (0, MARGIN), (0, 0)), constant_values=255) for cell in cells
    ]
    starts = range(0, len(padded), columns)
    rows = [np.concatenate(padded[start : start + columns], axis=1) for start in starts]
    panels = [Panel(image, label, label) for image, label in zip(images, labels, strict=True)]
    legend = legend_strip(_occurring(panels, class_names, palette), rows[0].shape[1])
    return np.concatenate([*rows, legend])


def uncertainty_sheet(
    panels: Sequence[Panel], maps: Sequence[Mapping[str, np.ndarray]], cell_width: int = 320
) -> np.ndarray:
    """Draws a row with image, errors and uncertainties for each panel.

    In the picture of errors, wrong pixels are white, correct pixels black and void pixels gray.
    There is also a picture for each uncertainty, with colors from black through red to light
    yellow. Black means 0. Light yellow means the 99th percentile of this uncertainty over all
    panels, or more.

    Args:
      panels: rows of the sheet, at least one.
      maps: for each panel, {name of an uncertainty: its value at each pixel, [H, W]}.
      cell_width: width of each image on the sheet, in pixels (default: 320).

    Returns:
      uint8 [height, width, 3].
    """
    names, strips = list(maps[0]), []
    highest = {
        name: float(np.quantile(np.concatenate([row[name].ravel() for row in maps]), 0.99))
        for name in names
    }
    for panel, row in zip(panels, maps, strict=True):
        errors = np.where(panel.truth != panel.prediction, np.uint8(255), np.uint8(0))
        # Void is the largest value of the dtype of labels.
        errors[panel.truth == np.iinfo(panel.truth.dtype).max] = 128
        heat = [heat_map(row[name] / max(highest[name], 1e-9)) for name in names]
        strips.append(_strip(panel.image, [np.stack([errors] * 3, axis=-1), *heat], cell_width))
    titles = ("image", "errors", *names)
    return np.concatenate([_titles(titles, strips[0].shape[1], cell_width), *strips])


def heat_map(values: np.ndarray) -> np.ndarray:
    """Converts values 0..1, [H, W], to colors from black to light yellow, uint8 [H, W, 3]."""
    levels = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].copy()


def _strip(image: np.ndarray, others: Sequence[np.ndarray], cell_width: int) -> np.ndarray:
    """Draws an image, and to its right other pictures of the same size, in one row.

    Args:
      image: uint8 or uint16 [H, W, C].
      others: colored class maps or heat maps, uint8 [H, W, 3].
      cell_width: width to which each of them is resized, in pixels. Images that are more than eight
        times as high as wide are resized to the height 8 · cell_width instead.
    """
    height, width = image.shape[:2]
    size = (cell_width, max(1, round(height * cell_width / width)))
    most = MAX_HEIGHT * cell_width
    if size[1] > most:
        size = (max(1, round(width * most / height)), most)
    cells = [Image.fromarray(displayed(image)).resize(size, Image.Resampling.LANCZOS)]
    cells += [Image.fromarray(one).resize(size, Image.Resampling.NEAREST) for one in others]
    full_width = len(cells) * (cell_width + MARGIN) + MARGIN
    strip = Image.new("RGB", (full_width, size[1] + MARGIN), PAPER)
    for column, cell in enumerate(cells):
        strip.paste(cell, (MARGIN + column * (cell_width + MARGIN), 0))
    return np.asarray(strip)


def _titles(titles: Sequence[str], width: int, cell_width: int) -> np.ndarray:
    band = Image.new("RGB", (width, ROW + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(band)
    font = ImageFont.load_default(FONT_SIZE)
    for column, title in enumerate(titles):
        center = MARGIN + column * (cell_width + MARGIN) + cell_width // 2
        draw.text((center, band.height // 2), title, INK, font, anchor="mm")
    return np.asarray(band)


def _occurring(
    panels: Sequence[Panel], class_names: Sequence[str], palette: Sequence[Color]
) -> Mapping[str, Color]:
    class_maps = (class_map for panel in panels for class_map in panel[1:])
    values: set[int] = set().union(*(np.unique(class_map).tolist() for class_map in class_maps))
    shown = {name: palette[i] for i, name in enumerate(class_names) if i in values}
    return shown | ({"void": VOID_COLOR} if void_label(len(palette)) in values else {})
