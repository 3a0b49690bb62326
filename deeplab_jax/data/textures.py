"""Textures of the built-in task: two colours and a pattern between them."""

import math
from collections.abc import Callable

import cv2
import numpy as np

# Height and width in pixels.
Size = tuple[int, int]
Pattern = Callable[[np.random.Generator, Size], np.ndarray]

# RGB half-distance between the two colours: of backgrounds, and of the materials of shapes.
BACKGROUND_LOUDNESS = 18.0
MATERIAL_LOUDNESS = 60.0
# Wavelength of the materials' patterns in pixels.
WAVELENGTH = (5.0, 9.0)
# Side of the grid that a background's clouds are interpolated from.
CLOUD_CELLS = (3, 7)


def draw_background(random: np.random.Generator, size: Size) -> np.ndarray:
    """Returns float32 [H, W, 3]: clouds or a gradient between two random neighbouring colours."""
    pattern = (_clouds, _gradient)[random.integers(2)]
    return _colored(random, pattern(random, size), BACKGROUND_LOUDNESS)


def draw_material(random: np.random.Generator, name: str, size: Size) -> np.ndarray:
    """Returns float32 [H, W, 3]: the pattern of a material, in random colours, turned at random."""
    return _colored(random, MATERIALS[name](random, size), MATERIAL_LOUDNESS)


def mean_color(texture: np.ndarray) -> np.ndarray:
    """Returns the mean RGB, from every fourth pixel of every fourth row."""
    return texture[::4, ::4].mean((0, 1))


def _colored(random: np.random.Generator, pattern: np.ndarray, loudness: float) -> np.ndarray:
    base = random.uniform(40, 215, 3)
    offset = random.normal(size=3)
    offset *= loudness / np.linalg.norm(offset)
    return np.float32(base) + np.float32(offset) * pattern[..., None]


def _turned_axes(random: np.random.Generator, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Returns two orthogonal coordinates in radians of one random wavelength."""
    angle = random.uniform(0, 2 * math.pi)
    frequency = 2 * math.pi / math.exp(random.uniform(*np.log(WAVELENGTH)))
    rows, columns = np.indices(size, np.float32) * np.float32(frequency)
    along = math.cos(angle) * columns + math.sin(angle) * rows
    return along, math.cos(angle) * rows - math.sin(angle) * columns


def _stripes(random: np.random.Generator, size: Size) -> np.ndarray:
    along, _ = _turned_axes(random, size)
    return np.clip(2 * np.sin(along), -1, 1)


def _checker(random: np.random.Generator, size: Size) -> np.ndarray:
    along, across = _turned_axes(random, size)
    return np.clip(3 * np.sin(along) * np.sin(across), -1, 1)


def _dots(random: np.random.Generator, size: Size) -> np.ndarray:
    along, across = _turned_axes(random, size)
    return np.clip(3 * np.cos(along) * np.cos(across) - 0.7 + np.cos(along) + np.cos(across), -1, 1)


def _waves(random: np.random.Generator, size: Size) -> np.ndarray:
    along, across = _turned_axes(random, size)
    return np.clip(2 * np.sin(along + 1.5 * np.sin(across)), -1, 1)


def _grain(random: np.random.Generator, size: Size) -> np.ndarray:
    return random.choice(np.float32([-1, 1]), size)


def _gradient(random: np.random.Generator, size: Size) -> np.ndarray:
    along, _ = _turned_axes(random, size)
    return 2 * (along - along.min()) / np.ptp(along) - 1


def _clouds(random: np.random.Generator, size: Size) -> np.ndarray:
    cells = random.integers(*CLOUD_CELLS)
    grid = random.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)


# Of each shape by name; the colours are random, so no single pixel gives a material away.
MATERIALS: dict[str, Pattern] = {
    "disc": _dots,
    "square": _checker,
    "triangle": _stripes,
    "ring": _waves,
    "cross": _grain,
}
