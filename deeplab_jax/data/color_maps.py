"""Colour maps of masks that are painted in class colours: reading them and applying them."""

import json
from pathlib import Path

import numpy as np

from deeplab_jax.errors import DeepLabError

Color = tuple[int, int, int]


def parse_text(text: str, origin: str) -> dict[str, Color]:
    """Returns {class name: RGB} of lines `r g b name`; empty lines are skipped.

    Raises:
      DeepLabError: a line is something else; `origin` names the file.
    """
    colors: dict[str, Color] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        *channels, name = line.split(maxsplit=3)
        colors[name.strip()] = _checked_color(channels, f"{origin}, line {number}")
    return colors


def read_color_map(path: Path) -> dict[str, Color]:
    """Reads {class name: RGB} from JSON `{"name": [r, g, b]}` or from text lines `r g b name`.

    Raises:
      DeepLabError: the file does not exist, is neither, or gives one colour to two classes.
    """
    text = read_text(path, "colour map")
    if path.suffix.lower() == ".json":
        entries = parse_json(text, path)
        if not isinstance(entries, dict):
            raise DeepLabError(f'{path}: a colour map in JSON is {{"name": [r, g, b], …}}')
        colors = {name: _checked_color(color, str(path)) for name, color in entries.items()}
    else:
        colors = parse_text(text, str(path))
    if not colors or len(set(colors.values())) < len(colors):
        raise DeepLabError(f"{path}: each class needs a colour of its own")
    return colors


def read_text(path: Path, kind: str) -> str:
    """Reads a user's text file; `kind` says in the error what it was to hold."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not a text file"
        raise DeepLabError(f"{path}: cannot read the {kind}: {reason}") from error


def parse_json(text: str, path: Path) -> object:
    """Parses a user's JSON; the error names the file."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DeepLabError(f"{path}: not JSON ({error})") from error


def _checked_color(channels: object, origin: str) -> Color:
    try:
        red, green, blue = (int(channel) for channel in channels)
    except (TypeError, ValueError):
        red = -1
    if red < 0 or not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise DeepLabError(f"{origin}: a colour is three numbers 0..255, as in `128 0 64 car`")
    return red, green, blue


def packed(colors: np.ndarray) -> np.ndarray:
    """Returns uint8 [..., 3] RGB as one int32 a colour."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
