"""Textures of the built-in task: two colours and a pattern between them."""

import math
from collections.abc import Callable

import cv2
import numpy as np

# Height and width in pixels.
Size = tuple[int, int]

# RGB half-distance between a texture's two colours: how loud the pattern is.
LOUDNESS = 26.0
# Wavelength of stripes and checkers in pixels.
WAVELENGTH = (6.0, 24.0)
# Side of the grid that noise is interpolated from.
NOISE_CELLS = (6, 24)


def draw_texture(random: np.random.Generator, size: Size) -> np.ndarray:
    """Returns float32 [H, W, 3]: a random pattern between two random neighbouring colours."""
    base = random.uniform(40, 215, 3)
    offset = random.normal(size=3)
    offset *= LOUDNESS / np.linalg.norm(offset)
    pattern = PATTERNS[random.integers(len(PATTERNS))](random, size)
    return np.float32(base) + np.float32(offset) * pattern[..., None]


def mean_color(texture: np.ndarray) -> np.ndarray:
    """Returns the mean RGB, from every fourth pixel of every fourth row."""
    return texture[::4, ::4].mean((0, 1))


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


def _gradient(random: np.random.Generator, size: Size) -> np.ndarray:
    along, _ = _turned_axes(random, size)
    return 2 * (along - along.min()) / np.ptp(along) - 1


def _noise(random: np.random.Generator, size: Size) -> np.ndarray:
    cells = random.integers(*NOISE_CELLS)
    grid = random.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)


PATTERNS: tuple[Callable[[np.random.Generator, Size], np.ndarray], ...] = (
    _stripes,
    _checker,
    _gradient,
    _noise,
)
