"""The sizes that networks see: images are padded to them, never resized."""

import math
from collections.abc import Sequence
from fractions import Fraction

from deeplab_jax import ops
from deeplab_jax.models import DeepLab

Size = tuple[int, int]

# Scales whose common denominator is larger cannot all be suited without a lot of padding.
MAX_DENOMINATOR = 8


def size_step(model: DeepLab, scales: Sequence[float] = (1.0,)) -> int:
    """Returns what lies between two legal sizes, in pixels.

    Scaled images, too, are to be k·output_stride + 1 wide: at (0.5, 0.75, 1) and output stride 16
    the step is 64. Scales such as 0.3, which would ask for more than eight output strides, are left
    as they come.

    Args:
      model: decides the output stride.
      scales: sizes at which the network sees the image, relative.
    """
    parts = math.lcm(*(Fraction(scale).limit_denominator(100).denominator for scale in scales))
    return model.architecture.output_stride * (parts if parts <= MAX_DENOMINATOR else 1)


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
    return round_up(model, size_step(model, scales), size, minimum)


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
