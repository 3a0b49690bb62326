"""Draws the images of docs/tutorials/applications.md.

usage: python docs/draw_applications.py street|drive|cells FOLDER

street  150 images of streets, with masks of seven classes
drive   40 frames of a video along a street
cells   200 16-bit grayscale images with 12-bit values, with masks of small bright spots that
        cover less than 2 % of the pixels
"""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

CLASSES = {
    "street": ("sky", "building", "road", "pavement", "tree", "car", "person"),
    "cells": ("tissue", "spot"),
}
STREET, CELLS = (97, 161), (97, 97)
NUM_SCENES, NUM_FRAMES, NUM_CELLS = 150, 40, 200
# Row of the horizon, as a share of the height; where the near edge of the pavement meets the road.
HORIZON = 0.45


class Scene:
    """An image and its mask, on which shapes are drawn. Later shapes cover earlier ones."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = np.array(size)
        self.image = np.zeros((*size, 3), np.float32)
        self.label = np.zeros(size, np.uint8)

    def fill(self, name: str, color: np.ndarray, *points: tuple[float, float]) -> None:
        """Fills a polygon. Points are (x, y), as fractions of width and height."""
        corners = np.rint(np.array(points) * (self.size[::-1] - 1)).astype(np.int32)
        self._paint(name, color, lambda mask: cv2.fillPoly(mask, [corners], 1))

    def ellipse(self, name: str, color: np.ndarray, x: float, y: float, *radii: float) -> None:
        """Fills an ellipse. x and y are fractions of width and height, radii of the height."""
        height, width = self.size
        center = round(x * (width - 1)), round(y * (height - 1))
        axes = tuple(max(1, round(radius * height)) for radius in radii)
        self._paint(name, color, lambda mask: cv2.ellipse(mask, center, axes, 0, 0, 360, 1, -1))

    def box(self, name: str, color: np.ndarray, left: float, top: float, *size: float) -> None:
        """Fills a rectangle: left, top, width and height, as fractions of the image size."""
        right, bottom = left + size[0], top + size[1]
        self.fill(name, color, (left, top), (right, top), (right, bottom), (left, bottom))

    def _paint(self, name: str, color: np.ndarray, draw: Callable[[np.ndarray], object]) -> None:
        mask = np.zeros(tuple(self.size), np.uint8)
        draw(mask)
        self.image[mask > 0] = color
        self.label[mask > 0] = CLASSES["street"].index(name)


def draw_street(seed: int, time: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draws a street, uint8 RGB, and its mask. With increasing time, 0..1, cars come closer."""
    random, scene = np.random.default_rng(seed), Scene(STREET)
    tint = random.uniform(0.75, 1.1)
    scene.image[:] = np.linspace((120, 160, 215), (205, 215, 225), STREET[0])[:, None] * tint
    _draw_houses(random, scene)
    scene.fill("pavement", _grey(random, 150), (0, HORIZON), (1, HORIZON), (1, 1), (0, 1))
    scene.fill("road", _grey(random, 85), (0.46, HORIZON), (0.54, HORIZON), (0.95, 1), (0.05, 1))
    for near in (0.1, 0.4, 0.75):
        y, width = HORIZON + (1 - HORIZON) * near, 0.02 * near
        scene.box("road", np.full(3, 190), 0.5 - width / 2, y, width, 0.08 * near)
    _draw_trees(random, scene)
    cars = sorted(
        ((random.random() + time) % 1, side, *random.uniform(30, 210, 3))
        for side in random.choice([-1, 1], random.integers(1, 4))
    )
    people = sorted((*random.random(2), *random.uniform(20, 200, 3)) for _ in range(3))
    for near, side, *color in cars:
        _draw_car(scene, near, side, np.array(color))
    for near, place, *color in people:
        _draw_person(scene, near, place, np.array(color))
    noise = np.random.default_rng((seed, round(1000 * time))).normal(0, 9, scene.image.shape)
    return np.clip(scene.image * tint + noise, 0, 255).astype(np.uint8), scene.label


def _grey(random: np.random.Generator, level: float) -> np.ndarray:
    return level + random.uniform(-25, 25) + random.uniform(-8, 8, 3)


def _draw_houses(random: np.random.Generator, scene: Scene) -> None:
    left = -0.05
    while left < 1:
        # Lower in the middle, where the street leads away.
        width, free = random.uniform(0.1, 0.22), random.uniform(0.02, 0.2)
        top = HORIZON * min(0.95, 1 - abs(left + width / 2 - 0.5) * 1.6 + free)
        wall, panes = random.uniform(90, 190, 3), random.uniform(30, 80, 3)
        scene.box("building", wall, left, top, width, HORIZON - top)
        for x in np.arange(left + 0.02, left + width - 0.03, 0.045):
            for y in np.arange(top + 0.03, HORIZON - 0.05, 0.08):
                scene.box("building", panes, x, y, 0.018, 0.035)
        left += width + random.choice([0, 0, 0.06])


def _draw_trees(random: np.random.Generator, scene: Scene) -> None:
    for side in random.choice([-1, 1], random.integers(0, 4)):
        x, scale = 0.5 + side * random.uniform(0.3, 0.48), random.uniform(0.7, 1.2)
        base = HORIZON + 0.15 * scale
        scene.box(
            "tree", random.uniform((60, 40, 20), (100, 70, 40)), x - 0.008, base - 0.2, 0.016, 0.2
        )
        leaves = random.uniform((20, 80, 15), (90, 150, 60))
        scene.ellipse("tree", leaves, x, base - 0.25 * scale, 0.11 * scale, 0.15 * scale)


def _draw_car(scene: Scene, near: float, side: int, color: np.ndarray) -> None:
    bottom, scale = HORIZON + (1 - HORIZON) * (0.15 + 0.8 * near), 0.2 + 0.8 * near
    x, width, height = 0.5 + side * (0.02 + 0.2 * near), 0.2 * scale, 0.14 * scale
    left = x - width / 2
    for wheel in (left + 0.1 * width, left + 0.7 * width):
        scene.box("car", np.full(3, 20), wheel, bottom - 0.1 * height, 0.2 * width, 0.25 * height)
    scene.box("car", color, left, bottom - height, width, height)
    roof = bottom - 1.8 * height
    scene.fill(
        "car",
        color * 0.8,
        (left + 0.08 * width, bottom - height),
        (left + 0.2 * width, roof),
        (left + 0.8 * width, roof),
        (left + 0.92 * width, bottom - height),
    )
    window = np.array((70, 90, 110))
    scene.box("car", window, left + 0.22 * width, roof + 0.15 * height, 0.56 * width, 0.55 * height)


def _draw_person(scene: Scene, near: float, place: float, color: np.ndarray) -> None:
    side = -1 if place < 0.5 else 1
    bottom, height = HORIZON + (1 - HORIZON) * (0.25 + 0.6 * near), 0.14 + 0.2 * near
    x = 0.5 + side * (0.16 + 0.26 * near + 0.1 * abs(place - 0.5))
    width = 0.2 * height
    scene.box("person", color * 0.5, x - width / 2, bottom - 0.45 * height, width, 0.45 * height)
    scene.box("person", color, x - 0.6 * width, bottom - 0.85 * height, 1.2 * width, 0.42 * height)
    scene.ellipse(
        "person", np.array((200, 160, 130)), x, bottom - 0.9 * height, *(0.1 * height,) * 2
    )


def draw_cells(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws tissue with bright vessels and spots, uint16 0..4095, and the mask of the spots."""
    random = np.random.default_rng(seed)
    clouds = cv2.resize(
        random.random((5, 5), np.float32), CELLS[::-1], interpolation=cv2.INTER_CUBIC
    )
    light, label = 300 + 900 * clouds, np.zeros(CELLS, np.uint8)
    for _ in range(random.integers(2, 5)):
        # Vessels are as bright as spots, so brightness alone does not distinguish them.
        (x, y), angle = random.uniform(0, 97, 2), random.uniform(0, np.pi)
        reach = 40 * np.array((np.cos(angle), np.sin(angle)))
        first, last = (np.rint((x, y) + sign * reach).astype(int).tolist() for sign in (-1, 1))
        vessel = np.zeros(CELLS, np.float32)
        cv2.line(vessel, first, last, random.uniform(500, 1100), int(random.integers(2, 5)))
        light = light + vessel
    for _ in range(random.integers(1, 5)):
        center = tuple(random.integers(6, 91, 2).tolist())
        axes = tuple(random.integers(2, 6, 2).tolist())
        angle = random.uniform(0, 180)
        spot = np.zeros(CELLS, np.uint8)
        cv2.ellipse(spot, center, axes, angle, 0, 360, 1, -1)
        label |= spot
        light = light + random.uniform(600, 1100) * spot
    image = cv2.GaussianBlur(light, (0, 0), 0.8) * random.uniform(0.7, 1.3)
    image += random.normal(0, 40, CELLS)
    return np.clip(np.rint(image), 0, 4095).astype(np.uint16), label


def write_set(
    folder: Path, name: str, draw: Callable[..., tuple[np.ndarray, np.ndarray]], number: int
) -> None:
    """Writes images/, masks/ and classes.txt as `prepare folder` reads them."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES[name]) + "\n")
    for seed in range(number):
        image, label = draw(seed)
        write_picture(folder / "images" / f"{seed:03}.png", image)
        write_picture(folder / "masks" / f"{seed:03}.png", label)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes pixels [H, W] (gray) or [H, W, 3] (RGB), uint8 or uint16, as a PNG file."""
    cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., ::-1])


def main(what: str, where: str) -> None:
    """Draws the images `what` (street, drive or cells) into the folder `where`."""
    folder = Path(where)
    if what == "street":
        write_set(folder, what, draw_street, NUM_SCENES)
    elif what == "cells":
        write_set(folder, what, draw_cells, NUM_CELLS)
    elif what == "drive":
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(NUM_FRAMES):
            image, _ = draw_street(1000, frame / NUM_FRAMES)
            write_picture(folder / f"{frame:03}.png", image)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
