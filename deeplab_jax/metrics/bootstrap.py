"""Bootstrap confidence interval of the difference between two results on the same images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deeplab_jax.arrays import Num

RESAMPLES = 1000
LEVEL = 0.95


class Change(NamedTuple):
    """Difference between two scores, with its 95 % confidence interval.

    Attributes:
      difference: second score minus first score, both over all images.
      low, high: bounds of the interval; NaN if the score is undefined for every bootstrap sample.
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
    """Computes the score of `after` minus the score of `before`, with a bootstrap interval.

    A bootstrap sample is a random choice, with replacement, of as many images as were evaluated.
    Both scores are computed on the same bootstrap samples, so that the difficulty of an image
    affects both.

    Args:
      before, after: counts of each image from two evaluations on the same images, integers
        [images, …], such as confusion matrices.
      score: function that computes a score from counts […] summed over images; NaN if undefined.
      resamples: number of bootstrap samples.
      seed: random seed of the bootstrap samples.

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
    """Returns the score of each bootstrap sample, float64 [resamples].

    `counts` are the counts of each image, [images, …]; their sums over images are exact below 2^53.
    `draws[r, i]` is the number of times that bootstrap sample r contains image i.
    """
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    return np.array([score(total.reshape(counts.shape[1:])) for total in draws @ flat])
