"""Computes the input sizes that a network accepts, to which images are padded."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax import ops
from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.options import Size
from deeplab_jax.models import Architecture, DeepLab

# Scales with a larger common denominator are ignored, because they would require too much padding.
MAX_DENOMINATOR = 8


class Grid(NamedTuple):
    """Legal heights and widths of the network's input: k·step + plus pixels for integers k.

    Attributes:
      step: difference between successive legal sides, in pixels.
      plus: remainder of a legal side after division by `step`, 0 or 1 pixel.
    """

    step: int
    plus: int

    def round_up(self, size: Size, minimum: Size | None = None) -> Size:
        """Returns the smallest legal (H, W) that is at least `size` and, if given, `minimum`."""
        step, plus = self
        wanted = (max(pair) for pair in zip(size, minimum or size, strict=True))
        height, width = (-(-max(side - plus, 1) // step) * step + plus for side in wanted)
        return height, width


def size_grid(architecture: Architecture, scales: Sequence[float] = (1.0,)) -> Grid:
    """Returns the legal heights and widths of an architecture's input.

    Legal sizes are a fixed step apart. For scale 1, the step is the output stride. For fractional
    scales, the step is larger, so that scaled images have a legal size, too: the scales (0.5, 0.75,
    1) at output stride 16 require a step of 64. If the scales require a step of more than eight
    output strides, as 0.3 does, all scales are ignored, and the step is the output stride.

    Args:
      architecture: architecture of the network. It determines the output stride, and the scales of
        networks that combine several scales internally (`multi_scale`, as in DeepLab v2).
      scales: scales of multi-scale inference. Unless they are (1,), they replace `multi_scale`.
    """
    if tuple(scales) == (1.0,):
        scales = architecture.multi_scale or scales
    parts = math.lcm(*(Fraction(scale).limit_denominator(100).denominator for scale in scales))
    step = architecture.output_stride * (parts if parts <= MAX_DENOMINATOR else 1)
    return Grid(step, architecture.size_remainder)


def padded_size(
    model: DeepLab, size: Size, minimum: Size | None = None, scales: Sequence[float] = (1.0,)
) -> Size:
    """Returns the smallest legal input size that is at least `size` and `minimum`.

    Legal sides are k·step + 1 if the network aligns corners when resizing and
    `Architecture.multiple_of_stride` is False. The corner samples of every feature map then lie on
    the corner pixels of the image. For all other networks, legal sides are k·step.

    Args:
      model: model that determines the legal sizes.
      size: (H, W) of the image, or of the largest image.
      minimum: minimum (H, W) of the result, or None.
      scales: scales of multi-scale inference. They affect the legal sizes, see `size_grid`.
    """
    return size_grid(model.architecture, scales).round_up(size, minimum)


def canvas_size(
    model: DeepLab, size: Size, minimum: Size | None = None, scales: Sequence[float] = (1.0,)
) -> Size:
    """Returns the size to which an image is padded before prediction.

    The minimum is first rounded up to a legal size. An image that fits into it gets this size.
    Otherwise, each side is rounded up to n·step + plus (see `Grid`) with n in 1, 2, 3, 4, 6, 8, 12,
    16, 24, …. If one side is then less than about half the other, it is padded to about half the
    other. With these few sizes, few programs are compiled. The size does not depend on the other
    images that are predicted, and therefore the class map does not depend on them either.

    Args:
      model: model that determines the legal sizes.
      size: (H, W) of the image.
      minimum: minimum (H, W) of the result, or None.
      scales: scales of multi-scale inference. They affect the legal sizes, see `size_grid`.
    """
    least = padded_size(model, minimum, scales=scales) if minimum else (0, 0)
    if size[0] <= least[0] and size[1] <= least[1]:
        return least
    step, plus = size_grid(model.architecture, scales)
    counts = [_coarse(-(-max(side - plus, 1) // step)) for side in size]
    half = _coarse(-(-max(counts) // 2))
    height, width = (
        max(max(count, half) * step + plus, side) for count, side in zip(counts, least, strict=True)
    )
    return height, width


def _coarse(count: int) -> int:
    """Returns the smallest of 1, 2, 3, 4, 6, 8, 12, 16, … that is at least `count`."""
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= count else power


def scaled_size(model: DeepLab, size: Size, scale: float) -> Size:
    """Returns the (H, W) of a padded image after scaling.

    A side d becomes ⌊(d − 1)·scale + 1⌋ if legal sides are k·step + 1, else d·scale, rounded.
    """
    if model.architecture.size_remainder:
        return ops.scaled_size(size, scale)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def check_image(image: Any, bands: Bands = RGB) -> None:
    """Checks that a value is an image with the given bands.

    Args:
      image: value to check.
      bands: bands of the network's input.

    Raises:
      DeepLabError: the value is not a NumPy array [H, W, C], its dtype or its number of channels C
        differs from `bands`, or it has no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise DeepLabError(
            f"an image must be a NumPy array of {bands.dtype}; got {type(image).__name__}"
        )
    if image.ndim != 3 or not image.size:
        raise DeepLabError(
            f"an image must have the shape [height, width, {bands.count}] and at least one pixel; "
            f"got {list(image.shape)}"
        )
    found = Bands(image.shape[2], image.dtype.name)
    if (found.count, found.dtype) != (bands.count, bands.dtype):
        raise DeepLabError(
            f"an image must have {bands}, as in training; got {found} with the shape "
            f"{list(image.shape)}"
        )
