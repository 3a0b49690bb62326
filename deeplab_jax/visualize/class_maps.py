"""Rendering of class maps as color images, overlays and legends."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing
from deeplab_jax.labels import VOID_COLOR, VOID_LABEL, label_dtype, void_label

Color = tuple[int, int, int]
CONTOUR_COLOR: Color = (255, 255, 255)
# Color of the background class in VOC. Overlays show the image at pixels of classes of this color.
CLEAR_COLOR: Color = (0, 0, 0)


def colorize(class_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Returns an image in which every pixel has the color of its class.

    Args:
      class_map: integers [H, W]; values that are not class indices have the color of void.
      palette: color of each class, RGB 0..255.

    Returns:
      uint8 [H, W, 3] RGB.
    """
    return color_table(palette)[_labels(class_map, len(palette))]


def _labels(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns a class map in which all values that are not class indices are replaced by void."""
    is_class = (class_map >= 0) & (class_map < num_classes)
    return np.where(is_class, class_map, np.intp(void_label(num_classes)))


# Percentiles of the values of a band that `displayed` maps to black and to white.
DARKEST, BRIGHTEST = 2, 98


def displayed(image: np.ndarray, bands: Sequence[int] | None = None) -> np.ndarray:
    """Converts an image with any number of bands to an 8-bit RGB picture.

    Args:
      image: uint8 or uint16 [H, W, C].
      bands: three band numbers, for red, green and blue, or one band number, for gray. Numbers
        start at 1. Default: bands 1, 2 and 3, or band 1 if there are fewer than three bands.

    Returns:
      uint8 [H, W, 3]. By default, 8-bit RGB is returned unchanged. Otherwise each band is stretched
      linearly, so that its 2nd percentile becomes black and its 98th percentile white.

    Raises:
      DeepLabError: a band does not exist, or `bands` has neither one nor three numbers.
    """
    count = image.shape[2]
    if bands is None and count == 3 and image.dtype == np.uint8:
        return image
    bands = bands or ((1, 2, 3) if count >= 3 else (1,))
    if len(bands) not in (1, 3) or not all(1 <= number <= count for number in bands):
        raise DeepLabError(
            f"bands {', '.join(map(str, bands))} cannot be displayed; give one or three band "
            f"numbers from 1 to {count}"
        )
    planes = [_stretched(image[..., number - 1]) for number in bands]
    return np.dstack(planes if len(planes) == 3 else planes * 3)


def _stretched(band: np.ndarray) -> np.ndarray:
    low, high = np.percentile(band, (DARKEST, BRIGHTEST))
    levels = (band.astype(np.float32) - low) * (255 / max(high - low, 1))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def overlay(
    image: np.ndarray, class_map: np.ndarray, palette: Sequence[Color], opacity: float = 0.55
) -> np.ndarray:
    """Draws the class colors over an image, and a thin light line between the classes.

    Void pixels and pixels of a class whose color is black show the image itself.

    Args:
      image: uint8 or uint16 [H, W, C]. An image that is not 8-bit RGB is converted: its first
        three bands become red, green and blue; if it has fewer than three bands, the first one
        becomes gray. Each band is stretched linearly from its 2nd to its 98th percentile.
      class_map: integers [H, W].
      palette: color of each class, RGB 0..255.
      opacity: opacity of the colors, 0..1.

    Returns:
      uint8 [H, W, 3] RGB.
    """
    return Overlay(palette, opacity).draw(displayed(image), class_map)


class Overlay:
    """Draws overlays for many images with the same palette."""

    def __init__(self, palette: Sequence[Color], opacity: float = 0.55) -> None:
        """Prepares the colors.

        Args:
          palette: color of each class, 0..255, in the channel order of the images.
          opacity: opacity of the colors, 0..1.
        """
        self._opacity, self._num_classes = opacity, len(palette)
        self._colors = color_table(palette)
        clear = (self._colors == CLEAR_COLOR).all(-1) | (
            np.arange(len(self._colors)) >= len(palette)
        )
        self._shown = (255 * ~clear).astype(np.uint8)

    def draw(
        self, image: np.ndarray, class_map: np.ndarray, thickness: int | None = None
    ) -> np.ndarray:
        """Draws the class colors over an image, and a thin light line between the classes.

        Void pixels and pixels of a class whose color is black show the image itself.

        Args:
          image: uint8 [H, W, 3].
          class_map: integers [H, W].
          thickness: width of the line in pixels; None: a width that depends on the size of the
            image.

        Returns:
          uint8 [H, W, 3], in the channel order of the image.
        """
        # OpenCV's look-up tables are faster, but limited to 256 values.
        eight_bit = class_map.dtype == np.uint8
        labels = class_map if eight_bit else _labels(class_map, self._num_classes)
        shown = cv2.LUT(labels, self._shown[:256]) if eight_bit else self._shown[labels]
        colors = np.take(self._colors, labels, axis=0)
        blended = cv2.addWeighted(image, 1 - self._opacity, colors, self._opacity, 0)
        result = image.copy()
        cv2.copyTo(blended, shown, result)
        line = _contour(class_map, thickness or line_thickness(class_map.shape))
        result[line] = np.round(0.25 * result[line] + 0.75 * np.asarray(CONTOUR_COLOR))
        return result


def line_thickness(size: tuple[int, ...]) -> int:
    """Returns the width of the line between classes, in pixels, for an image of size (H, W, …)."""
    return 1 + round(math.hypot(*size) / 1200)


def write_class_map(path: Path, class_map: np.ndarray, palette: Sequence[Color]) -> None:
    """Writes a PNG whose pixel values are the class indices.

    The file is an 8-bit palette PNG for up to 255 classes, and a 16-bit gray PNG for more.

    Args:
      path: output file, written atomically.
      class_map: integers [H, W]: class indices; void is 255 for up to 255 classes, else 65535.
      palette: color of each class, RGB 0..255.
    """
    picture = class_map_picture(class_map, palette)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def class_map_picture(class_map: np.ndarray, palette: Sequence[Color]) -> Image.Image:
    """Returns a Pillow image whose pixel values are the class indices.

    Args:
      class_map: integers [H, W]: class indices; void is 255 for up to 255 classes, else 65535.
      palette: color of each class, RGB 0..255.

    Returns:
      An 8-bit image with the palette, or a 16-bit gray image for more than 255 classes.
    """
    picture = Image.fromarray(class_map.astype(label_dtype(len(palette)), copy=False))
    if len(palette) <= VOID_LABEL:
        picture.putpalette(color_table(palette).tobytes())
    return picture


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes an image uint8 [H, W, 3] as a PNG, atomically."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def png_bytes(picture: np.ndarray) -> bytes:
    """Returns the bytes of a PNG file with an image uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def color_table(palette: Sequence[Color]) -> np.ndarray:
    """Returns a table of the color of every possible label.

    Labels that are not class indices have the color of void. The result is uint8 [256, 3], or
    [65536, 3] for more than 255 classes.
    """
    table = np.full((void_label(len(palette)) + 1, 3), VOID_COLOR, np.uint8)
    table[: len(palette)] = palette
    return table


def _contour(class_map: np.ndarray, thickness: int) -> np.ndarray:
    """Returns the pixels of the line between classes, bool [H, W].

    First, each pixel whose right or lower neighbor has another class is marked. The marks are then
    extended to the left and upward, until the line is `thickness` pixels wide.
    """
    line = np.zeros(class_map.shape, bool)
    line[:-1] |= class_map[1:] != class_map[:-1]
    line[:, :-1] |= class_map[:, 1:] != class_map[:, :-1]
    for _ in range(thickness - 1):
        line[:-1] |= line[1:]
        line[:, :-1] |= line[:, 1:]
    return line


FONT_SIZE = 14
SWATCH, GAP, ROW = 14, 6, 24
PAPER: Color = (255, 255, 255)
INK: Color = (32, 32, 32)
OUTLINE: Color = (128, 128, 128)


def legend_strip(colors: Mapping[str, Color], width: int) -> np.ndarray:
    """Draws a legend: a color swatch and a name for each class, in one or more rows.

    Args:
      colors: {class name: RGB 0..255}.
      width: width of the legend in pixels.

    Returns:
      uint8 [height, width, 3]; the height is 0 if there is no class.
    """
    font = ImageFont.load_default(FONT_SIZE)
    places, left, row = [], GAP, 0
    for name in colors:
        length = SWATCH + GAP + round(font.getlength(name)) + 2 * GAP
        if left > GAP and left + length > width:
            left, row = GAP, row + 1
        places.append((left, row * ROW))
        left += length
    height = (row + 1) * ROW if colors else 0
    strip = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(strip)
    for (left, top), (name, color) in zip(places, colors.items(), strict=True):
        box = (left, top + (ROW - SWATCH) // 2, left + SWATCH, top + (ROW + SWATCH) // 2)
        draw.rounded_rectangle(box, radius=3, fill=tuple(color), outline=OUTLINE)
        draw.text((left + SWATCH + GAP, top + ROW // 2), name, INK, font, anchor="lm")
    return np.asarray(strip)
