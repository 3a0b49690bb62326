"""Diagnostic tasks: datasets of synthetic images that test claims of the DeepLab papers.

Each task tests one claim. Only one kind of cue determines the classes of a task, for example
outlines, or the colors of distant squares. A network that cannot use this cue is hardly more
accurate than random guesses. No files are read: an image depends only on the arguments of
`draw_diagnostic`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from deeplab_jax.data.descriptors import Descriptor, describe
from deeplab_jax.data.shapes import OUTLINES
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.labels import VOID_LABEL

Drawing = tuple[np.ndarray, np.ndarray]

# Standard deviation of the noise, and the gray level of backgrounds, in levels of 0..255.
NOISE, GRAY = 6.0, 110
# RGB colors of the cues, which mean the classes `red` and `blue` of two tasks, and of the targets.
RED, BLUE, TARGET = (220, 60, 60), (60, 90, 220), (235, 225, 120)
MIN_SIZE = 64
# Default distance from a target to its cue, side of a target, and side of a cue, in pixels.
DISTANCE, TARGET_SIDE, CUE_SIDE = 24, 9, 5
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
# Minimum distance between a global cue and all targets, as a fraction of the image side.
GLOBAL_DISTANCE = 0.4
# Ratio of the largest to the smallest radius in `diagnostic_scales`, and smallest radius in pixels.
SCALE_RANGE, LEAST_RADIUS = 16, 2.8
# OpenCV's thickness of lines, which are one to three pixels wide, and difference between the gray
# levels (0..255) of a line and the background.
LINE_WIDTHS, LINE_CONTRAST = (1, 2), 70
# Each class of `diagnostic_rare` has this fraction of the pixels of the one before.
RARITY = 0.25
RARE_COLORS = ((190, 90, 90), (90, 170, 90), (90, 110, 200), (200, 180, 80))
# Colors of the objects of `diagnostic_outlines`; number and depth of the waves of their outlines.
OBJECT_COLORS = ((190, 90, 90), (90, 170, 90), (90, 110, 200))
WAVES, WAVE_DEPTH = (5, 9), 0.3


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """Synthetic segmentation task that tests one claim of the DeepLab papers.

    Attributes:
      descriptor: name and classes.
      draw: function that returns an image, float32 [H, W, 3], and its label, uint8 [H, W]. The
        arguments are a random generator, the image side in pixels and, for `diagnostic_distance`,
        the distance in pixels between an object and the cue that determines its class.
      claim: claim of the papers that the task tests, with its source.
      says: conclusion that may be drawn if two networks differ in accuracy on this task.
      cannot_say: conclusion that must not be drawn from such a difference.
    """

    descriptor: Descriptor
    draw: Callable[..., Drawing]
    claim: str
    says: str
    cannot_say: str


def draw_diagnostic(
    name: str, seed: int, split: int, index: int, size: int = 96, distance: int | None = None
) -> Drawing:
    """Draws one image and its label for a diagnostic task.

    Args:
      name: name of the task, such as `diagnostic_distance`.
      seed: random seed of the dataset.
      split: number of the split; different splits have different images.
      index: index of the image in the split.
      size: height and width in pixels, at least 64 (default: 96).
      distance: distance in pixels from an object to the cue that determines its class, only for
        `diagnostic_distance` (default: 24).

    Returns:
      Image, uint8 [size, size, 3] RGB, and label, uint8 [size, size], 255 where void.

    Raises:
      DeepLabError: there is no such task, `size` is below 64, `distance` is too small or too large
        for the image, or `distance` is given for a task other than `diagnostic_distance`.
    """
    check_name("diagnostic task", name, DIAGNOSTICS)
    if size < MIN_SIZE:
        raise DeepLabError(f"size={size} is too small for {name}; it must be at least {MIN_SIZE}")
    options = {}
    if distance is not None:
        if name != "diagnostic_distance":
            raise DeepLabError(
                f"{name} does not support distance; omit it, or draw diagnostic_distance"
            )
        if not TARGET_SIDE + 2 <= distance <= size // 2 - TARGET_SIDE:
            raise DeepLabError(
                f"distance={distance} must be in {TARGET_SIDE + 2}..{size // 2 - TARGET_SIDE} for "
                f"images of {size}x{size} pixels"
            )
        options["distance"] = distance
    random = np.random.default_rng((seed, list(DIAGNOSTICS).index(name), split, index))
    image, label = DIAGNOSTICS[name].draw(random, size, **options)
    image += NOISE * random.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), label


def _blank(size: int, value: int = 0) -> Drawing:
    return np.full((size, size, 3), GRAY, np.float32), np.full((size, size), value, np.uint8)


def _square(center: np.ndarray, side: int) -> tuple[slice, slice]:
    row, column = (int(value) - side // 2 for value in center)
    return slice(row, row + side), slice(column, column + side)


def _points(
    random: np.random.Generator, size: int, margin: int, tries: int
) -> Iterator[np.ndarray]:
    """Yields `tries` random points (row, column), at least `margin` pixels from the border."""
    yield from random.integers(margin, size - margin, (tries, 2))


def draw_distance(random: np.random.Generator, size: int, distance: int = DISTANCE) -> Drawing:
    """Draws squares of one color, each with a cue whose color determines the class of the square.

    The cue is exactly `distance` pixels to the left or right of its square, above it or below it.
    No cue of another square is near any of these four positions. Pixels outside the squares are
    void.
    """
    image, label = _blank(size, VOID_LABEL)
    margin, taken, cues = TARGET_SIDE, np.zeros((size, size), bool), list[np.ndarray]()
    targets = list[np.ndarray]()
    for target in _points(random, size, margin, 24):
        direction = np.array(DIRECTIONS[random.integers(4)])
        cue, color = target + distance * direction, int(random.integers(2))
        near = _square(target, TARGET_SIDE + 4)
        if not (margin <= cue.min() and cue.max() < size - margin) or taken[near].any():
            continue
        around = _square(cue, CUE_SIDE + 4)
        if taken[around].any() or _ambiguous([*targets, target], [*cues, cue], distance):
            continue
        taken[near], taken[around] = True, True
        image[_square(target, TARGET_SIDE)] = TARGET
        image[_square(cue, CUE_SIDE)] = (RED, BLUE)[color]
        label[_square(target, TARGET_SIDE)] = color
        targets.append(target)
        cues.append(cue)
    return image, label


def _ambiguous(targets: list[np.ndarray], cues: list[np.ndarray], distance: int) -> bool:
    """Returns whether the cue of any target could be mistaken for the cue of another target.

    This is the case if a cue lies near one of the four positions where another target could have
    its cue.

    Args:
      targets: centers (row, column) of the squares to classify, in pixels.
      cues: center (row, column) of the cue of each target, in pixels.
      distance: distance from a target to its cue, in pixels.
    """
    offsets = distance * np.array(DIRECTIONS)
    for number, target in enumerate(targets):
        others = [cue for index, cue in enumerate(cues) if index != number]
        for cue in others:
            if np.abs(target + offsets - cue).max(axis=1).min() <= CUE_SIDE:
                return True
    return False


def draw_global(random: np.random.Generator, size: int) -> Drawing:
    """Draws squares of one class; the color of a single cue, far from them, determines the class.

    Pixels outside the squares are void.
    """
    image, label = _blank(size, VOID_LABEL)
    color = int(random.integers(2))
    cue = next(_points(random, size, CUE_SIDE, 1))
    image[_square(cue, CUE_SIDE)] = (RED, BLUE)[color]
    for target in _points(random, size, TARGET_SIDE, 40):
        near = _square(target, TARGET_SIDE + 2)
        if math.dist(target, cue) < GLOBAL_DISTANCE * size or (label[near] != VOID_LABEL).any():
            continue
        image[_square(target, TARGET_SIDE)] = TARGET
        label[_square(target, TARGET_SIDE)] = color
    return image, label


def draw_scales(random: np.random.Generator, size: int) -> Drawing:
    """Draws discs, squares and triangles whose radii differ by a factor of up to 16.

    Colors do not depend on the class, so only the outline shows the class.
    """
    image, label = _blank(size)
    largest = min(LEAST_RADIUS * SCALE_RANGE, size / 2 - 2)
    taken = np.zeros((size, size), bool)
    names = ("disc", "square", "triangle")
    # Large objects first; small ones fit between them.
    logarithms = random.uniform(math.log(LEAST_RADIUS), math.log(largest), 8)
    for radius in np.sort(np.exp(logarithms))[::-1].tolist():
        for center in random.uniform(radius + 1, size - radius - 1, (6, 2)):
            number, turn = int(random.integers(3)), random.uniform(0, 2 * math.pi)
            inside = _polygon(OUTLINES[names[number]][0], center, radius, turn, size)
            if taken[cv2.dilate(inside, np.ones((5, 5), np.uint8)) > 0].any():
                continue
            color = random.uniform(30, 225, 3)
            color[random.integers(3)] = random.choice([20, 230])
            image[inside > 0], label[inside > 0] = color, number + 1
            taken |= inside > 0
            break
    return image, label


def _polygon(
    outline: np.ndarray, center: np.ndarray, radius: float, turn: float, size: int
) -> np.ndarray:
    """Returns the mask of a scaled, rotated and shifted outline, uint8 [size, size], 0 or 1.

    Args:
      outline: corners [number, 2], (x, y) relative to the center, in units of the radius.
      center: (x, y) in pixels.
      radius: radius in pixels.
      turn: rotation in radians.
      size: height and width of the mask in pixels.
    """
    cosine, sine = math.cos(turn), math.sin(turn)
    points = outline @ np.array([[cosine, sine], [-sine, cosine]]) * radius + center
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return canvas


def draw_thin(random: np.random.Generator, size: int) -> Drawing:
    """Draws pairs of adjacent thin lines, of the classes `bright` and `dark`, on a gray background.

    The mean of the two lines is the gray of the background. A feature map that does not resolve the
    lines therefore cannot distinguish them.
    """
    image, label = _blank(size)
    for _ in range(6):
        width, radius = int(random.choice(LINE_WIDTHS)), random.uniform(0.15, 0.5) * size
        center, start = random.uniform(0.1 * size, 0.9 * size, 2), random.uniform(0, 360)
        span = random.uniform(90, 240)
        # The line that is drawn last is outside or inside with equal probability.
        sign = int(random.choice([-1, 1]))
        for number, shift in ((1, 0.0), (2, sign * (width + 0.5))):
            arc = cv2.ellipse2Poly(
                tuple(np.rint(center).astype(int).tolist()),
                (int(radius + shift), int(radius + shift)),
                0,
                int(start),
                int(start + span),
                2,
            )
            points = [np.array(arc, np.int32)]
            line = cv2.polylines(np.zeros((size, size), np.uint8), points, False, 1, width)
            label[line > 0] = number
    image[label == 1] += LINE_CONTRAST
    image[label == 2] -= LINE_CONTRAST
    return image, label


def draw_rare(random: np.random.Generator, size: int) -> Drawing:
    """Draws discs of four classes, which have different colors and frequencies.

    On average, each class has a quarter of the pixels of the class before it.
    """
    image, label = _blank(size)
    shares = RARITY ** np.arange(len(RARE_COLORS))
    for _ in range(8):
        number = int(random.choice(len(shares), p=shares / shares.sum()))
        radius = random.uniform(0.05, 0.14) * size
        center = random.uniform(radius + 1, size - radius - 1, 2)
        inside = _polygon(OUTLINES["disc"][0], center, radius, 0.0, size) > 0
        color = np.array(RARE_COLORS[number]) + 12 * random.standard_normal(3)
        image[inside], label[inside] = color, number + 1
    return image, label


def draw_outlines(random: np.random.Generator, size: int) -> Drawing:
    """Draws objects with wavy outlines; the color of an object, one of three, is its class.

    As in PASCAL VOC, the outlines are void. They are two pixels wide: one pixel on each side of
    every change of class.
    """
    image, label = _blank(size)
    angles = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    for _ in range(5):
        number = int(random.integers(len(OBJECT_COLORS)))
        radius = random.uniform(0.12, 0.28) * size
        center = random.uniform(radius / 2, size - radius / 2, 2)
        waves = int(random.integers(WAVES[0], WAVES[1] + 1)) * angles + random.uniform(0, 6)
        lengths = 1 + WAVE_DEPTH * np.sin(waves)
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]
        inside = _polygon(outline, center, radius, 0.0, size) > 0
        image[inside], label[inside] = OBJECT_COLORS[number], number + 1
    square = np.ones((3, 3), np.uint8)
    label[cv2.dilate(label, square) != cv2.erode(label, square)] = VOID_LABEL
    return image, label


def _task(name: str, classes: str, *rest: str | Callable[..., Drawing]) -> tuple[str, Diagnostic]:
    return name, Diagnostic(describe(name, classes.split()), *rest)  # type: ignore[arg-type]


DIAGNOSTICS: dict[str, Diagnostic] = dict(
    (
        _task(
            "diagnostic_distance",
            "red blue",
            draw_distance,
            "An atrous rate helps if the field of view covers the context, and a far larger rate "
            "degenerates to a 1×1 convolution (DeepLab v2, table 1; v3, section 3.3 and table 5).",
            "A difference shows that features reach a cue at a known distance.",
            "It does not show that photographs contain such cues, or at which distances.",
        ),
        _task(
            "diagnostic_scales",
            "background disc square triangle",
            draw_scales,
            "Parallel rates handle objects of many scales better than one rate (DeepLab v2, tables "
            "3 and 4).",
            "A difference shows that a head classifies outlines over a 16-fold range of sizes.",
            "It does not show that outlines matter in photographs, where texture may be enough.",
        ),
        _task(
            "diagnostic_global",
            "red blue",
            draw_global,
            "Image pooling adds context of the whole image (DeepLab v3, section 3.3 and table 5).",
            "A difference shows that features reach a cue anywhere in the image.",
            "It does not show that image pooling helps if the cue is not a single object.",
        ),
        _task(
            "diagnostic_thin",
            "background bright dark",
            draw_thin,
            "A smaller output stride and a decoder recover thin structures (DeepLab v3, table 1; "
            "v3+, table 3).",
            "A difference shows that details of one to three pixels survive in the output.",
            "It does not show how much of the error on photographs is near outlines.",
        ),
        _task(
            "diagnostic_rare",
            "background common uncommon rare very_rare",
            draw_rare,
            "Class weights and overlap losses help classes with few pixels; for DeepLab, images "
            "with rare classes are duplicated (DeepLab v3, section 4.3).",
            "A difference shows that a loss learns a class with few pixels.",
            "It does not show that a loss separates a rare class from a similar common class.",
        ),
        _task(
            "diagnostic_outlines",
            "background red green blue",
            draw_outlines,
            "A decoder and a dense CRF recover the outlines of objects (DeepLab v3+, figure 5; v1, "
            "table 1).",
            "A difference in a band around void shows that outlines are located more precisely.",
            "It does not show that a CRF helps where objects and background have similar colors.",
        ),
    )
)
