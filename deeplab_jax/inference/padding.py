"""The sizes that networks see: images are padded to them, never resized."""

import math
from collections.abc import Sequence
from fractions import Fraction

from deeplab_jax import ops
from deeplab_jax.inference.options import Size
from deeplab_jax.models import Architecture, DeepLab

# Scales whose common denominator is larger cannot all be suited without a lot of padding.
MAX_DENOMINATOR = 8


def size_step(architecture: Architecture, scales: Sequence[float] = (1.0,)) -> int:
    """Returns the distance between two legal sizes, in pixels.

    Scaled images must be k·output_stride + 1 wide, too: at (0.5, 0.75, 1) and output stride 16 the
    step is 64. Scales such as 0.3, which need more than eight output strides, are ignored.

    Args:
      architecture: has the output stride, and perhaps scales of its own (DeepLab v2's MSC).
      scales: sizes at which the network sees the image, relative; others than (1,) replace those of
        the network.
    """
    if tuple(scales) == (1.0,):
        scales = architecture.multi_scale or scales
    parts = math.lcm(*(Fraction(scale).limit_denominator(100).denominator for scale in scales))
    return architecture.output_stride * (parts if parts <= MAX_DENOMINATOR else 1)


def padded_size(
    model: DeepLab, size: Size, minimum: Size | None = None, scales: Sequence[float] = (1.0,)
) -> Size:
    """Returns the smallest size that suits the network and holds both sizes.

    That is k·step + 1, where every map of the encoder has its corners on the image's; a network
    whose resizes do not align corners takes k·step.

    Args:
      model: decides the output stride.
      size: (H, W) of the image or of the largest one.
      minimum: (H, W) that the result is not to fall below, if any.
      scales: see `size_step`.
    """
    return round_up(model, size_step(model.architecture, scales), size, minimum)


def canvas_size(
    model: DeepLab, size: Size, minimum: Size | None = None, scales: Sequence[float] = (1.0,)
) -> Size:
    """Returns the size that an image is padded to before it goes through the network.

    The size follows from the image's own size alone, so that a class map does not depend on the
    images beside it. An image that fits into the minimum gets the minimum. Otherwise each side is
    rounded up to n·step + 1 with n in 1, 2, 3, 4, 6, 8, 12, 16, 24, …, and the shorter side to at
    least half of the longer one, so that images of many sizes share few compiled programs.

    Args:
      model: decides the legal sizes.
      size: (H, W) of the image.
      minimum: (H, W) that smaller images are padded to, if any.
      scales: see `size_step`.
    """
    least = padded_size(model, minimum, scales=scales) if minimum else (0, 0)
    if size[0] <= least[0] and size[1] <= least[1]:
        return least
    step, extra = size_step(model.architecture, scales), int(model.architecture.align_corners)
    counts = [_coarse(-(-max(side - extra, 1) // step)) for side in size]
    half = _coarse(-(-max(counts) // 2))
    height, width = (
        max(max(count, half) * step + extra, side)
        for count, side in zip(counts, least, strict=True)
    )
    return height, width


def _coarse(count: int) -> int:
    """Returns the smallest of 1, 2, 3, 4, 6, 8, 12, 16, … that is at least `count`."""
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= count else power


def round_up(model: DeepLab, step: int, size: Size, minimum: Size | None = None) -> Size:
    """Returns the smallest multiple of a step (plus 1, where corners align) that holds both sizes.

    Args:
      model: decides whether corners align.
      step: in pixels.
      size, minimum: as of `padded_size`.
    """
    extra = 1 if model.architecture.align_corners else 0
    wanted = (max(pair) for pair in zip(size, minimum or size, strict=True))
    height, width = (-(-max(length - extra, 1) // step) * step + extra for length in wanted)
    return height, width


def scaled_size(model: DeepLab, size: Size, scale: float) -> Size:
    """Returns the size of a padded image at a scale: ⌊(d − 1)·scale + 1⌋ of both sides.

    Where corners do not align, the pixels' edges do: d·scale.
    """
    if model.architecture.align_corners:
        return ops.scaled_size(size, scale)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width
