"""Legal sizes of the network's input, to which images are padded."""

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

# Common denominators above it would require too much padding.
MAX_DENOMINATOR = 8


class Grid(NamedTuple):
    """Legal sides of the network's input: k·step + plus pixels.

    Attributes:
      step: distance between two legal sides, in pixels.
      plus: 1 if the network aligns corners when resizing, else 0.
    """

    step: int
    plus: int

    def round_up(self, size: Size, minimum: Size | None = None) -> Size:
        """Returns the smallest legal (H, W) that is at least as large as each given size."""
        step, plus = self
        wanted = (max(pair) for pair in zip(size, minimum or size, strict=True))
        height, width = (-(-max(side - plus, 1) // step) * step + plus for side in wanted)
        return height, width


def size_grid(architecture: Architecture, scales: Sequence[float] = (1.0,)) -> Grid:
    """Returns the legal sides of an architecture's input.

    The sides of scaled images must be k·output_stride + 1, too: for scales (0.5, 0.75, 1) and
    output stride 16, the step is 64. Scales such as 0.3, which would require a step of more than
    eight output strides, are ignored.

    Args:
      architecture: architecture with an output stride and, for DeepLab v2's MSC, with scales.
      scales: scales of multi-scale inference; unless they are (1,), they replace the scales of the
        architecture.
    """
    if tuple(scales) == (1.0,):
        scales = architecture.multi_scale or scales
    parts = math.lcm(*(Fraction(scale).limit_denominator(100).denominator for scale in scales))
    step = architecture.output_stride * (parts if parts <= MAX_DENOMINATOR else 1)
    return Grid(step, int(architecture.align_corners))


def padded_size(
    model: DeepLab, size: Size, minimum: Size | None = None, scales: Sequence[float] = (1.0,)
) -> Size:
    """Returns the smallest legal size that is at least `size` and `minimum`.

    Legal sides are k·step + 1, for which the corners of every feature map coincide with those of
    the image; or k·step, if the network does not align corners when resizing.

    Args:
      model: model with an output stride.
      size: (H, W) of the image, or of the largest image.
      minimum: minimum (H, W) of the result, or None.
      scales: see `size_grid`.
    """
    return size_grid(model.architecture, scales).round_up(size, minimum)


def canvas_size(
    model: DeepLab, size: Size, minimum: Size | None = None, scales: Sequence[float] = (1.0,)
) -> Size:
    """Returns the size that an image is padded to before prediction.

    The size depends only on the size of the image, so that a class map does not depend on other
    images. An image not larger than the minimum is padded to the minimum. Otherwise each side is
    rounded up to n·step + 1 with n in 1, 2, 3, 4, 6, 8, 12, 16, 24, …, and the shorter side to at
    least half of the longer one, so that few programs are compiled for images of many sizes.

    Args:
      model: model that determines the legal sizes.
      size: (H, W) of the image.
      minimum: (H, W) that smaller images are padded to, or None.
      scales: see `size_grid`.
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

    A side d becomes ⌊(d − 1)·scale + 1⌋ if the network aligns corners, else d·scale, rounded.
    """
    if model.architecture.align_corners:
        return ops.scaled_size(size, scale)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def check_image(image: Any, bands: Bands = RGB) -> None:
    """Checks that a value is an image with the given bands.

    Args:
      image: value to check.
      bands: bands of the network's input.

    Raises:
      DeepLabError: it is not a NumPy array [H, W, C] with this dtype and number of bands, or it
        has no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise DeepLabError(
            f"an image must be a NumPy array of {bands.dtype}; got {type(image).__name__}"
        )
    if image.ndim != 3 or not image.size:
        raise DeepLabError(
            f"an image must have shape [height, width, {bands.count}] and pixels; got "
            f"{list(image.shape)}"
        )
    found = Bands(image.shape[2], image.dtype.name)
    if (found.count, found.dtype) != (bands.count, bands.dtype):
        raise DeepLabError(
            f"an image must have {bands}, which the model was trained on; got {found}, shape "
            f"{list(image.shape)}"
        )
