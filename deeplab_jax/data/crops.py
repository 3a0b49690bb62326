"""Crops, padding and resizing of images and labels."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from deeplab_jax.data.datasets import Example
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_LABEL, void_of

# Gray pixel, RGB. Networks that scale 0..255 to -1..1 map it to about 0; see
# `Architecture.mean_pixel`.
MEAN_PIXEL = (127, 127, 127)


def pad(image: np.ndarray, size: tuple[int, int], value: int | Sequence[int]) -> np.ndarray:
    """Pads an image or label at the bottom and right.

    Args:
      image: [H, W] or [H, W, C].
      size: (height, width) of the result.
      value: value of the new pixels; one number, or one for each channel.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    padded = np.full((*size, *image.shape[2:]), value, image.dtype)
    padded[:height, :width] = image
    return padded


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns an image that is downsampled, if necessary, to fit into a size.

    The aspect ratio is kept.

    Args:
      image: [H, W] or [H, W, C].
      size: maximum (height, width) of the result, in pixels.
    """
    scale = min(1, *(wanted / length for wanted, length in zip(size, image.shape, strict=False)))
    if scale == 1:
        return image
    height, width = (max(1, int(length * scale)) for length in image.shape[:2])
    return by_channels(
        lambda part, _: cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), image
    )


# Maximum height and width of images that OpenCV 4 warps. It resizes longer labels wrongly with
# INTER_NEAREST_EXACT.
MAX_SIDE = 32766
# Maximum number of channels that the OpenCV functions in this package, and OpenCV's pixel values,
# support.
MAX_CHANNELS = 4


def by_channels(
    function: Callable[[np.ndarray, Any], np.ndarray], image: np.ndarray, outside: Any = 0
) -> np.ndarray:
    """Applies a function of OpenCV to an image with any number of channels.

    Some functions of OpenCV support at most four channels. The function is therefore applied to
    four channels at a time.

    Args:
      function: takes an image with at most four channels, and the value of pixels outside it.
      image: [H, W] or [H, W, C].
      outside: value of pixels outside the image; one number, or one for each channel.

    Returns:
      The results, concatenated along the channels, with as many axes and channels as the image.
    """
    if image.ndim == 2 or 2 <= image.shape[2] <= MAX_CHANNELS:
        return function(image, outside)
    values = outside if isinstance(outside, Sequence) else (outside,) * image.shape[2]
    starts = range(0, image.shape[2], MAX_CHANNELS)
    parts = [slice(start, start + MAX_CHANNELS) for start in starts]
    results = [function(np.ascontiguousarray(image[..., part]), values[part]) for part in parts]
    # OpenCV drops an axis of one channel.
    return np.dstack(results)


def pad_to(
    example: Example,
    size: tuple[int, int],
    fill: Sequence[int],
    num_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Pads an example at the bottom and right.

    Args:
      example: example that is not larger than `size`.
      size: (h, w) of the result.
      fill: value of each channel of the padding; the label is padded with void.
      num_classes: number of classes of the dataset, which determines the void label. None: void is
        65535 for uint16 labels and 255 otherwise.

    Returns:
      {"image": [h, w, C], "label": [h, w]}, with the same dtypes as in `example`.

    Raises:
      DeepLabError: the example is larger than `size`, or the dtype of its label cannot represent
        void.
    """
    height, width = example["label"].shape
    if height > size[0] or width > size[1]:
        raise DeepLabError(
            f"{example['image_id']}: the image is {height}x{width} (height x width), larger than "
            f"the evaluation size {size[0]}x{size[1]}; give a size of at least {height}x{width}"
        )
    return {
        "image": pad(example["image"], size, fill),
        "label": pad(example["label"], size, void_of(example["label"], num_classes)),
    }


class Sampling(NamedTuple):
    """Interpolation and padding of images or of labels.

    Attributes:
      resize, warp: OpenCV's interpolation flags for resizing, and for warping with rotation.
      outside: value of pixels outside the source image; one number, or one for each channel.
    """

    resize: int
    warp: int
    outside: int | tuple[int, ...]


IMAGE_SAMPLING = Sampling(cv2.INTER_LINEAR, cv2.INTER_LINEAR, MEAN_PIXEL)
# When resizing, INTER_NEAREST rounds down, which would shift labels by half a pixel.
LABEL_SAMPLING = Sampling(cv2.INTER_NEAREST_EXACT, cv2.INTER_NEAREST, VOID_LABEL)


class Span(NamedTuple):
    """Position of a crop along one axis; the source image is first resized, then cropped.

    Attributes:
      start, stop: range of pixels of the source that contains the crop before rotation, `stop`
        excluded. Without rotation, only this range is resized.
      size: length of this range after resizing, in pixels.
      offset: position in the resized range at which the crop begins, in pixels.
    """

    start: int
    stop: int
    size: int
    offset: int


class View(NamedTuple):
    """Position of a crop in the source image.

    Attributes:
      rows, columns: position along the vertical axis and along the horizontal axis.
      angle: rotation in degrees.
      mirrored: whether the crop is mirrored left to right.
    """

    rows: Span
    columns: Span
    angle: float
    mirrored: bool


def random_view(
    random: np.random.Generator,
    source_size: tuple[int, int],
    size: tuple[int, int],
    *,
    scale: tuple[float, float],
    rotation: float,
    flip: bool,
) -> View:
    """Draws a random position, angle and mirroring of a crop.

    Args:
      random: random generator.
      source_size: (height, width) of the image.
      size: (height, width) of the crop.
      scale: resize factors of height and width. If the resized image is smaller than the crop, it
        is placed at the top left of the crop.
      rotation: maximum angle in degrees to either side.
      flip: whether to mirror the crop left to right with probability ½.
    """
    rows, columns = (
        _random_span(random, length, crop, factor)
        for length, crop, factor in zip(source_size, size, scale, strict=True)
    )
    angle = random.uniform(-rotation, rotation)
    mirrored = flip and bool(random.integers(2))
    return View(rows, columns, angle, mirrored)


def render(source: np.ndarray, view: View, size: tuple[int, int], sampling: Sampling) -> np.ndarray:
    """Returns a crop of an image or a label.

    Args:
      source: uint8 or uint16, [H, W, C] or [H, W].
      view: position of the crop, returned by `random_view`.
      size: (height, width) of the crop, the same as in the call of `random_view`.
      sampling: IMAGE_SAMPLING (linear interpolation) or LABEL_SAMPLING (nearest neighbor).
    """
    if view.angle:
        crop = _warp(source, view, size, sampling)
    else:
        # Resizing is several times as fast as warping.
        crop = pad(_resize(source, view, size, sampling), size, sampling.outside)
    return by_channels(lambda part, _: cv2.flip(part, 1), crop) if view.mirrored else crop


def _random_span(random: np.random.Generator, length: int, crop: int, scale: float) -> Span:
    scaled = max(1, round(length * scale))
    if scaled <= crop:
        return Span(0, length, scaled, 0)
    # Only the part of the source that the crop shows is resized.
    needed = min(length, math.ceil(crop / scale))
    size = max(crop, round(needed * scale))
    start = int(random.integers(length - needed + 1))
    return Span(start, start + needed, size, int(random.integers(size - crop + 1)))


def _resize(
    source: np.ndarray, view: View, size: tuple[int, int], sampling: Sampling
) -> np.ndarray:
    rows, columns, *_ = view
    shown = source[rows.start : rows.stop, columns.start : columns.stop]
    size_of_all = (columns.size, rows.size)
    if sampling.resize == cv2.INTER_NEAREST_EXACT and max(shown.shape[:2]) > MAX_SIDE:
        resized = _nearest(shown, (rows.size, columns.size))
    else:
        resized = by_channels(
            lambda part, _: cv2.resize(part, size_of_all, interpolation=sampling.resize), shown
        )
    bottom, right = rows.offset + size[0], columns.offset + size[1]
    return resized[rows.offset : bottom, columns.offset : right]


def _nearest(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a label [H, W] to (height, width); each pixel is the nearest one of the label."""
    rows, columns = (
        ((2 * np.arange(to) + 1) * length) // (2 * to)
        for length, to in zip(label.shape, size, strict=True)
    )
    return label[rows][:, columns]


def _warp(source: np.ndarray, view: View, size: tuple[int, int], sampling: Sampling) -> np.ndarray:
    """Returns a crop that is scaled, shifted and rotated about its center in one resampling."""
    turn = cv2.getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), view.angle, 1.0)
    to_source = np.zeros((2, 3))
    for axis, span in enumerate((view.columns, view.rows)):
        step = (span.stop - span.start) / span.size
        to_source[axis, axis] = step
        # Pixel centers lie at half-integers, as in cv2.resize.
        to_source[axis, 2] = span.start + (span.offset + 0.5) * step - 0.5
    matrix = to_source @ np.vstack([turn, [0, 0, 1]])
    if max(source.shape[:2]) > MAX_SIDE:
        source, matrix = _cut_out(source, matrix, size)
    return by_channels(
        lambda part, outside: cv2.warpAffine(
            part,
            matrix,
            size[::-1],
            flags=sampling.warp | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=outside,
        ),
        source,
        sampling.outside,
    )


def _cut_out(
    source: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the part of an image that a warped crop shows out of the image.

    If the part is longer than `MAX_SIDE`, only every second (third, …) row or column is kept.

    Args:
      source: image [H, W, C] or label [H, W].
      matrix: affine map from (x, y) in the crop to (x, y) in the image, float64 [2, 3].
      size: (height, width) of the crop.

    Returns:
      The part, and the affine map from the crop to the part.
    """
    right, bottom = size[1] - 1, size[0] - 1
    corners = matrix @ np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    matrix, slices = matrix.copy(), []
    for axis, length in enumerate(source.shape[1::-1]):
        # Interpolation reads the next pixel, too.
        first, last = int(corners[axis].min()) - 2, int(corners[axis].max()) + 3
        start = min(max(first, 0), length - 1)
        stop = max(min(last + 1, length), start + 1)
        step = -(-(stop - start) // MAX_SIDE)
        matrix[axis, 2] -= start
        matrix[axis] /= step
        slices.append(slice(start, stop, step))
    return np.ascontiguousarray(source[slices[1], slices[0]]), matrix
