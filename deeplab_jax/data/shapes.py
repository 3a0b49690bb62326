"""Built-in dataset of synthetic images: textured shapes on smooth backgrounds.

Each class is a kind of shape, such as a ring, with its own outline and texture. The colors and
positions of all shapes are drawn from the same distributions, so they do not identify a kind. To
segment thin parts and small shapes well, a network requires a decoder. No files are read: an image
depends only on (seed, split, index).
"""

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np

from deeplab_jax.labels import VOID_LABEL

# Radius of a ring's hole, and half the width of a cross's arms, as fractions of the shape's radius.
RING_HOLE = 0.62
CROSS_ARM = 0.3


def _regular_polygon(num_corners: int, radius: float = 1.0) -> np.ndarray:
    angles = np.arange(num_corners) * (2 * math.pi / num_corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _cross() -> np.ndarray:
    arm = CROSS_ARM
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


# Contours [corners, 2] of each shape, in the order of the labels 1, 2, …. A second contour is the
# outline of a hole.
OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "disc": (_regular_polygon(48, 0.9),),
    "square": (_regular_polygon(4),),
    "triangle": (_regular_polygon(3),),
    "ring": (_regular_polygon(48), _regular_polygon(48, RING_HOLE)),
    "cross": (_cross(),),
}


# Height and width in pixels.
Size = tuple[int, int]

# RGB distance between the mean color and the extreme colors, for backgrounds and for shapes.
BACKGROUND_LOUDNESS = 18.0
MATERIAL_LOUDNESS = 60.0
# Range of the wavelength of patterns, in pixels.
WAVELENGTH = (5.0, 9.0)
# Range of the number of cells per side of the random grid from which clouds are interpolated.
CLOUD_CELLS = (3, 7)


def draw_background(random: np.random.Generator, size: Size) -> np.ndarray:
    """Draws clouds or a gradient between two similar random colors, float32 [H, W, 3]."""
    pattern = (_clouds, _gradient)[random.integers(2)]
    return _colored(random, pattern(random, size), BACKGROUND_LOUDNESS)


def mean_color(texture: np.ndarray) -> np.ndarray:
    """Returns the mean RGB color of every fourth pixel in every fourth row of a texture."""
    return texture[::4, ::4].mean((0, 1))


def _colored(random: np.random.Generator, pattern: np.ndarray, loudness: float) -> np.ndarray:
    base = random.uniform(40, 215, 3)
    offset = random.normal(size=3)
    offset *= loudness / np.linalg.norm(offset)
    return np.float32(base) + np.float32(offset) * pattern[..., None]


def _turned_axes(random: np.random.Generator, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Returns the phases, in radians, of two orthogonal waves from which a texture is computed.

    Both waves have the same random wavelength; the direction of the first is random.

    Returns:
      Phase of the first wave and phase of the second wave, each float32 [H, W].
    """
    angle = random.uniform(0, 2 * math.pi)
    frequency = 2 * math.pi / math.exp(random.uniform(*np.log(WAVELENGTH)))
    rows, columns = np.indices(size, np.float32) * np.float32(frequency)
    along = math.cos(angle) * columns + math.sin(angle) * rows
    return along, math.cos(angle) * rows - math.sin(angle) * columns


def _gradient(random: np.random.Generator, size: Size) -> np.ndarray:
    along, _ = _turned_axes(random, size)
    return 2 * (along - along.min()) / np.ptp(along) - 1


def _clouds(random: np.random.Generator, size: Size) -> np.ndarray:
    cells = random.integers(*CLOUD_CELLS)
    grid = random.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)


# Texture of each shape as a function of two phases; the results are clipped to −1..1. The texture
# of "cross", which is missing here, is noise.
WAVES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: 3 * np.cos(x) * np.cos(y) - 0.7 + np.cos(x) + np.cos(y),
    "square": lambda x, y: 3 * np.sin(x) * np.sin(y),
    "triangle": lambda x, y: 2 * np.sin(x),
    "ring": lambda x, y: 2 * np.sin(x + 1.5 * np.sin(y)),
}


def draw_material(random: np.random.Generator, name: str, size: Size) -> np.ndarray:
    """Draws the texture of the shape `name`, such as "ring", as float32 [H, W, 3].

    The colors and the direction of the texture are random.
    """
    if name in WAVES:
        pattern = np.clip(WAVES[name](*_turned_axes(random, size)), -1, 1)
    else:
        pattern = random.choice(np.array([-1, 1], np.float32), size)
    return _colored(random, pattern, MATERIAL_LOUDNESS)


# Range of the number of shapes per image; range of their radius as a fraction of the image side.
NUM_SHAPES = (3, 6)
RADIUS = (0.15, 0.28)
# Minimum distance of two centers as a fraction of the sum of the two radii; below 1, shapes may
# overlap.
SEPARATION = 0.8
# Minimum RGB distance between the mean colors of a shape and the background.
CONTRAST = 80.0
# Fraction of the brightness that a shadow removes, and that shading adds or removes on a shape.
SHADOW = 0.45
SHADING = 0.25
# Brightness of the highlight, and standard deviation of the noise, in levels of 0..255.
SPECULAR = 40.0
SENSOR_NOISE = 3.0
# Side of the structuring element that draws the void border; 3 gives a border of two pixels.
VOID_WIDTH = 3

# Number of fractional bits of the coordinates of outlines that OpenCV fills.
FIXED_POINT_BITS = 4


@dataclasses.dataclass(frozen=True)
class Pose:
    """Position, size and rotation of a shape.

    Attributes:
      center: (x, y) in pixels.
      radius: radius in pixels.
      angle: rotation in radians.
    """

    center: np.ndarray
    radius: float
    angle: float

    def window(self, size: int) -> tuple[slice, slice]:
        """Returns the rows and the columns of an image that contain the shape and its shadow.

        Args:
          size: height and width of the image, in pixels.
        """
        reach = 1.5 * self.radius
        columns, rows = (slice(max(0, int(at - reach)), int(at + reach)) for at in self.center)
        return rows, columns

    def seen_from(self, rows: slice, columns: slice) -> "Pose":
        """Returns this pose relative to the top left corner of a window `image[rows, columns]`."""
        corner = np.array([columns.start, rows.start])
        return dataclasses.replace(self, center=self.center - corner)


def draw_scene(seed: int, split: int, index: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image and its label.

    Args:
      seed: random seed of the dataset.
      split: number of the split; different splits have different images.
      index: index of the image in the split.
      size: height and width in pixels (default: 96).

    Returns:
      Image, uint8 [size, size, 3] RGB; label, uint8 [size, size], with 0 for the background and
      255 (void) along the outlines of shapes.
    """
    random = np.random.default_rng((seed, split, index))
    image = draw_background(random, (size, size))
    background = mean_color(image)
    label = np.zeros((size, size), np.uint8)
    light = random.uniform(0, 2 * math.pi)
    for pose in _place(random, size):
        window = pose.window(size)
        local_pose = pose.seen_from(*window)
        number = int(random.integers(len(OUTLINES)))
        name = list(OUTLINES)[number]
        coverage = _coverage(OUTLINES[name], local_pose, label[window].shape)
        filling = _lit(_filling(random, name, background, coverage.shape), local_pose, light)
        _cast_shadow(image[window], coverage, light, pose.radius)
        image[window] += (filling - image[window]) * coverage[..., None]
        _mark(label[window], coverage, number + 1)
    image += SENSOR_NOISE * random.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), label


def _place(random: np.random.Generator, size: int) -> list[Pose]:
    """Returns random poses of shapes in an image of `size` × `size` pixels.

    The distance between the centers of two shapes is more than 0.8 times the sum of their radii.
    """
    placed: list[Pose] = []
    for _ in range(random.integers(NUM_SHAPES[0], NUM_SHAPES[1] + 1)):
        radius = size * math.exp(random.uniform(*np.log(RADIUS)))
        for center in random.uniform(0.08 * size, 0.92 * size, (20, 2)):
            if all(
                math.dist(center, other.center) > SEPARATION * (radius + other.radius)
                for other in placed
            ):
                placed.append(Pose(center, radius, random.uniform(0, 2 * math.pi)))
                break
    return placed


def _coverage(contours: tuple[np.ndarray, ...], pose: Pose, size: Size) -> np.ndarray:
    """Returns the fraction of each pixel that a shape covers, float32 [H, W], 0..1.

    Args:
      contours: outline of the shape, and its hole if there is one. Each contour is [corners, 2],
        (x, y) relative to the center of the shape, in units of the radius.
      pose: position, size and rotation of the shape.
      size: (height, width) of the result in pixels.
    """
    cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
    turn = np.array([[cosine, sine], [-sine, cosine]]) * pose.radius
    points = [(contour @ turn + pose.center) * (1 << FIXED_POINT_BITS) for contour in contours]
    canvas = np.zeros(size, np.uint8)
    rounded = [np.rint(contour).astype(np.int32) for contour in points]
    cv2.fillPoly(canvas, rounded, 255, cv2.LINE_AA, FIXED_POINT_BITS)
    return canvas.astype(np.float32) / 255


def _filling(
    random: np.random.Generator, name: str, background: np.ndarray, size: Size
) -> np.ndarray:
    """Draws textures of a shape until one differs enough from the background.

    Args:
      random: random generator.
      name: name of the shape.
      background: mean color of the background, RGB.
      size: (height, width) of the texture in pixels.

    Returns:
      Texture, float32 [H, W, 3].
    """
    while True:
        filling = draw_material(random, name, size)
        if np.linalg.norm(mean_color(filling) - background) >= CONTRAST:
            return filling


def _lit(filling: np.ndarray, pose: Pose, light: float) -> np.ndarray:
    """Returns a texture with shading, and with a highlight on the side of the light.

    Args:
      filling: texture, float32 [H, W, 3].
      pose: pose of the shape in the texture.
      light: direction from which the light comes, in radians.
    """
    height, width = filling.shape[:2]
    rows, columns = np.indices((height, width), np.float32, sparse=True)
    x, y = (columns - pose.center[0]) / pose.radius, (rows - pose.center[1]) / pose.radius
    towards = math.cos(light) * x + math.sin(light) * y
    distance = (x - 0.4 * math.cos(light)) ** 2 + (y - 0.4 * math.sin(light)) ** 2
    shade = 1 + SHADING * np.clip(towards, -1, 1)
    highlight = SPECULAR * np.exp(-8 * distance)
    return (filling * shade[..., None] + highlight[..., None]).astype(np.float32)


def _cast_shadow(image: np.ndarray, coverage: np.ndarray, light: float, radius: float) -> None:
    """Darkens an image, in place, in the shadow that a shape casts on it.

    Args:
      image: float32 [H, W, 3].
      coverage: fraction of each pixel that the shape covers, float32 [H, W].
      light: direction from which the light comes, in radians.
      radius: radius of the shape in pixels.
    """
    away = -0.2 * radius * np.array([math.cos(light), math.sin(light)])
    shift = np.array([[1, 0, away[0]], [0, 1, away[1]]])
    shadow = cv2.warpAffine(coverage, shift, coverage.shape[::-1])
    image *= 1 - SHADOW * cv2.GaussianBlur(shadow, (0, 0), 1 + 0.06 * radius)[..., None]


def _mark(label: np.ndarray, coverage: np.ndarray, value: int) -> None:
    """Draws a shape with a void border into a label [H, W], in place, as class `value`."""
    inside = (coverage >= 0.5).astype(np.uint8)
    label[inside == 1] = value
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (VOID_WIDTH, VOID_WIDTH))
    label[cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, cross) == 1] = VOID_LABEL
