"""Bootstrap interval of the difference between two results on the same images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deeplab_jax.arrays import Num

RESAMPLES = 1000
LEVEL = 0.95


class Change(NamedTuple):
    """Difference of a score, with its 95 % bootstrap interval.

    Attributes:
      difference: score after minus score before, on all images.
      low, high: bounds of the interval.
    """

    difference: float
    low: float
    high: float


def paired_change(
    before: Num[np.ndarray, "images ..."],
    after: Num[np.ndarray, "images ..."],
    score: Callable[[np.ndarray], float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Change:
    """Returns the change of a score of summed counts with its paired bootstrap interval.

    Images are drawn with replacement, and both results are summed over the same draw, so that the
    difficulty of an image cancels.

    Args:
      before, after: counts of each image, integers [images, …].
      score: function of summed counts […]; NaN where it is undefined.
      resamples: number of draws.
      seed: seed of the draws.

    Source: percentile bootstrap, Efron and Tibshirani, "An introduction to the bootstrap", 1993,
    chapter 13.
    """
    images = len(before)
    draws = np.random.default_rng(seed).multinomial(images, [1 / images] * images, size=resamples)
    differences = _resampled(after, draws, score) - _resampled(before, draws, score)
    whole = score(after.sum(axis=0)) - score(before.sum(axis=0))
    known = differences[~np.isnan(differences)]
    if not known.size:
        return Change(whole, float("nan"), float("nan"))
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Change(whole, float(low), float(high))


def _resampled(
    counts: np.ndarray, draws: np.ndarray, score: Callable[[np.ndarray], float]
) -> np.ndarray:
    """Returns the score of each draw; sums are exact below 2^53."""
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    return np.array([score(total.reshape(counts.shape[1:])) for total in draws @ flat])
