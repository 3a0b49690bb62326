"""Class maps as pictures, with legends."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing
from deeplab_jax.labels import IGNORE_LABEL, VOID_COLOR, label_dtype, void_label

Color = tuple[int, int, int]
CONTOUR_COLOR: Color = (255, 255, 255)
# A class in this colour is what the others stand before, as VOC's background: overlays leave it.
CLEAR_COLOR: Color = (0, 0, 0)


def colorize(class_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Paints every pixel in its class's colour.

    Args:
      class_map: integers [H, W]; values without a colour are void.
      palette: RGB 0..255, one a class.

    Returns:
      uint8 [H, W, 3].
    """
    return _color_table(palette)[class_map]


def overlay(
    image: np.ndarray, class_map: np.ndarray, palette: Sequence[Color], opacity: float = 0.55
) -> np.ndarray:
    """Lays the classes over the image, with a thin light line where they meet.

    Pixels of a black class and void pixels keep the image.

    Args:
      image: uint8 [H, W, 3].
      class_map: integers [H, W].
      palette: RGB 0..255, one a class.
      opacity: of the colours, 0..1.

    Returns:
      uint8 [H, W, 3].
    """
    colors = colorize(class_map, palette)
    clear = (colors == CLEAR_COLOR).all(-1) | (class_map >= len(palette))
    weight = np.where(clear, 0, opacity).astype(np.float32)[..., None]
    blended = image * (1 - weight) + colors * weight
    line = _contour(class_map, thickness=1 + round(np.hypot(*class_map.shape) / 1200))
    blended[line] = 0.25 * blended[line] + 0.75 * np.asarray(CONTOUR_COLOR)
    return np.round(blended).astype(np.uint8)


class Overlay:
    """The overlays of many pictures, several times as fast as `overlay`.

    They may differ from it by 1 of 255, for it rounds in between.
    """

    def __init__(self, palette: Sequence[Color], opacity: float = 0.55) -> None:
        """Prepares the colours.

        Args:
          palette: RGB 0..255, one a class.
          opacity: of the colours, 0..1.
        """
        self._opacity = opacity
        table = _color_table(palette)
        self._bgr = np.ascontiguousarray(table[:, ::-1])
        clear = (table == CLEAR_COLOR).all(-1) | (np.arange(len(table)) >= len(palette))
        self._shown = (255 * ~clear).astype(np.uint8)

    def draw_bgr(self, image: np.ndarray, class_map: np.ndarray) -> np.ndarray:
        """Lays the classes over an image.

        Args:
          image: uint8 [H, W, 3], in OpenCV's order.
          class_map: `label_dtype(len(palette))` [H, W].

        Returns:
          uint8 [H, W, 3], in the same order.
        """
        # OpenCV's tables are of bytes alone.
        eight_bit = class_map.dtype == np.uint8
        shown = cv2.LUT(class_map, self._shown[:256]) if eight_bit else self._shown[class_map]
        colors = np.take(self._bgr, class_map, axis=0)
        blended = cv2.addWeighted(image, 1 - self._opacity, colors, self._opacity, 0)
        result = image.copy()
        cv2.copyTo(blended, shown, result)
        line = _contour(class_map, thickness=1 + round(np.hypot(*class_map.shape) / 1200))
        result[line] = np.round(0.25 * result[line] + 0.75 * np.asarray(CONTOUR_COLOR))
        return result


def palette_bytes(palette: Sequence[Color]) -> bytes:
    """Returns 256 RGB colours as PNG files have them; values without a class are void.

    Raises:
      DeepLabError: there are more than 255 classes.
    """
    if len(palette) > IGNORE_LABEL:
        raise DeepLabError(
            f"{len(palette)} colours: the palette of a PNG has 255 beside void; write 16-bit grey"
        )
    return _color_table(palette).tobytes()


def write_class_map(path: Path, class_map: np.ndarray, palette: Sequence[Color]) -> None:
    """Writes a PNG whose pixel values are the classes.

    Up to 255 classes it is 8-bit and its palette shows their colours; above, it is 16-bit grey.

    Args:
      path: of the file, which appears whole or not at all.
      class_map: integers [H, W]: classes, or `void_label(len(palette))`.
      palette: RGB 0..255, one a class.
    """
    picture = class_map_picture(class_map, palette)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def class_map_picture(class_map: np.ndarray, palette: Sequence[Color]) -> Image.Image:
    """Returns a class map as a picture whose pixel values are the classes.

    Args:
      class_map: integers [H, W]: classes, or `void_label(len(palette))`.
      palette: RGB 0..255, one a class.

    Returns:
      An 8-bit picture with the palette, or with more than 255 classes a 16-bit grey one.
    """
    picture = Image.fromarray(class_map.astype(label_dtype(len(palette)), copy=False))
    if len(palette) <= IGNORE_LABEL:
        picture.putpalette(palette_bytes(palette))
    return picture


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as a PNG, whole or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def png_bytes(picture: np.ndarray) -> bytes:
    """Returns uint8 [H, W, 3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _color_table(palette: Sequence[Color]) -> np.ndarray:
    table = np.full((void_label(len(palette)) + 1, 3), VOID_COLOR, np.uint8)
    table[: len(palette)] = palette
    return table


def _contour(class_map: np.ndarray, thickness: int) -> np.ndarray:
    """Returns bool [H, W]: pixels within `thickness` before a change to the right or below."""
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
    """Draws a swatch and a name for each class, in as many rows as they need.

    Args:
      colors: {class name: RGB 0..255}.
      width: of the strip in pixels.

    Returns:
      uint8 [height, width, 3]; no rows when there is no class.
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
