"""How many images a chip has room for."""

from collections.abc import Callable
from typing import NamedTuple

# What a search compiles at most, beside the batch that was asked for.
MOST_COMPILATIONS = 6
ESTIMATED = (
    "estimated from one compilation: the state and a gradient stay, all other memory grows with "
    "the batch"
)


class LargestBatch(NamedTuple):
    """The answer, and how it was found.

    Attributes:
      images: that each part of the batch has room for, of one chip or of those that share rows; 0
        where not even one fits.
      how: in words.
    """

    images: int
    how: str


def estimated_largest_batch(used: int, fixed: int, usable: int, images: int) -> LargestBatch:
    """Returns the largest batch by proportion.

    Args:
      used: bytes a chip at `images` images.
      fixed: of them, those that any batch needs.
      usable: bytes a chip has.
      images: that `used` is of.
    """
    an_image = max(used - fixed, 1) / images
    return LargestBatch(max(0, int((usable - fixed) / an_image)), ESTIMATED)


def searched_largest_batch(
    used: Callable[[int], int], first: tuple[int, int], fixed: int, usable: int
) -> LargestBatch:
    """Returns the largest batch that the compiler finds room for.

    Tries are where the line through the best that fits and the least that does not reaches the
    limit, and midway between them, in turns.

    Args:
      used: compiles for a number of images and returns bytes a chip.
      first: (images, bytes) of a compilation that has been done.
      fixed: bytes that any batch needs, for the first guess.
      usable: bytes a chip has.
    """
    known = {0: fixed, first[0]: first[1]}
    for turn in range(MOST_COMPILATIONS + 1):
        fits = max((images for images, size in known.items() if size <= usable), default=0)
        over = min((images for images, size in known.items() if size > usable), default=None)
        if over in (0, fits + 1) or turn == MOST_COMPILATIONS:
            break
        guess = _crossing(known, usable, max(known) if over is None else over)
        if over is not None:
            guess = min(guess if turn % 2 == 0 else (fits + over) // 2, over - 1)
        guess = max(guess, fits + 1)
        known[guess] = used(guess)
    bracket = f"{fits} fit" + ("" if over is None else f", {over} do not")
    return LargestBatch(fits, f"searched with {len(known) - 2} more compilations: {bracket}")


def _crossing(known: dict[int, int], usable: int, end: int) -> int:
    """Returns the images at which the line through `end` and the point before it is full."""
    start = max(images for images in known if images < end)
    slope = max((known[end] - known[start]) / (end - start), 1.0)
    return int(start + (usable - known[start]) / slope)
