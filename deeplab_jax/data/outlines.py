"""Outlines of the built-in task's shapes, in the unit circle."""

import math

import numpy as np

# Fractions of the radius: smaller holes make thicker rings, smaller arms thinner parts.
RING_HOLE = 0.62
CROSS_ARM = 0.3


def _regular_polygon(num_corners: int, radius: float = 1.0, start: float = 0.0) -> np.ndarray:
    angles = start + np.arange(num_corners) * (2 * math.pi / num_corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _cross() -> np.ndarray:
    arm = CROSS_ARM
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


# Contours [corners, 2]; a second one cuts a hole. In the order of the labels 1, 2, ….
OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "disc": (_regular_polygon(48, 0.9),),
    "square": (_regular_polygon(4),),
    "triangle": (_regular_polygon(3),),
    "ring": (_regular_polygon(48), _regular_polygon(48, RING_HOLE)),
    "cross": (_cross(),),
}
