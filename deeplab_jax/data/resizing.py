"""The size that images of very different sizes are brought to before training."""


def size_in_range(
    size: tuple[int, int], shortest: int, longest: int, factor: int
) -> tuple[int, int]:
    """Returns the size after resizing to a range, as the released code does for ADE20K.

    The shorter side becomes `shortest`; where the longer one would exceed `longest`, it becomes
    that instead. The shape is kept but for rounding.

    Args:
      size: (height, width) in pixels.
      shortest: of the result's shorter side; 0: no wish.
      longest: the result's longer side is at most that; 0: any length.
      factor: sides, and the limits, are rounded up to k·factor + 1; 0: to whole pixels.

    Source: `resize_to_range` of tensorflow/models, research/deeplab.
    """
    if not shortest and not longest:
        return size
    limits = [_rounded_up(longest, factor) / max(size)] if longest else []
    wishes = [shortest / min(size)] if shortest else [1.0]
    scale = min(*wishes, *limits) if limits else wishes[0]
    height, width = (max(1, _rounded_up(int(side * scale + 1e-6), factor)) for side in size)
    return height, width


def _rounded_up(side: int, factor: int) -> int:
    return side + -(side - 1) % factor if factor else side
