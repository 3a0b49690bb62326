"""What a reader of channels loses when they go one by one and the others make up for them."""

import numpy as np


def elimination_costs(covariance: np.ndarray, gram: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Returns what each channel costs when the cheapest goes first, and then the next.

    A channel that goes is told from those that are still there by least squares, as `compensated`
    does it. What that leaves of the variance of the reader's outputs is its cost: of the copy of
    another channel nothing, and of the other one, once the copy is gone, much.

    Args:
      covariance: of the channels, [C, C]; channels without variance have zeros.
      gram: products of the kernels that read two channels, summed over taps and outputs, [C, C].
      free: whether a channel may go, bool [C].

    Returns:
      float64 [C], in the order of going never less than the one before; 0 for those that stay.

    Source: the saliency of Hassibi and Stork, Optimal Brain Surgeon (1993), for whole channels.
    """
    varying = np.diagonal(covariance) > 0
    precision, gram = np.zeros_like(covariance), gram.copy()
    square = np.ix_(varying, varying)
    precision[square] = np.linalg.inv(covariance[square])
    candidates, costs, worst = varying & free, np.zeros(len(covariance)), 0.0
    for _ in range(int(candidates.sum())):
        numbers = np.flatnonzero(candidates)
        losses = np.diagonal(gram)[numbers] / np.diagonal(precision)[numbers]
        cheapest = int(losses.argmin())
        channel, worst = numbers[cheapest], max(worst, losses[cheapest])
        costs[channel], candidates[channel] = worst, False
        _eliminate(precision, gram, channel)
    return costs


def _eliminate(precision: np.ndarray, gram: np.ndarray, channel: int) -> None:
    """Takes a channel out of both, in place; what its readers made of it the others get."""
    column, pivot = precision[:, channel].copy(), precision[channel, channel]
    slopes = column / pivot
    precision -= np.outer(slopes, column)
    precision[channel] = precision[:, channel] = 0
    read = gram[channel].copy()
    moved = np.outer(slopes, read)
    gram += read[channel] * np.outer(slopes, slopes) - moved - moved.T
    gram[channel] = gram[:, channel] = 0
