"""Strips that say which colour is which class."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_jax.visualize.class_maps import Color

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
