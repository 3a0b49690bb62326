"""Importance scores that rank the channels of a network for pruning."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from deeplab_jax.compression.calibration import Path, input_statistics
from deeplab_jax.compression.pruning_graph import NO_CHANNEL, ChannelGraph
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import DeepLab, fold

# Minimum shrinkage intensity of a covariance, 0..1.
LEAST_SHRINKAGE = 1e-4
# Variance relative to the squared mean up to which a channel counts as constant.
ROUNDING = 1e-10


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of the input channels of a convolution, over all pixels.

    Attributes:
      mean: mean of each channel, [C].
      covariance: covariance of the channels, [C, C].
      count: number of pixels.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @property
    def variance(self) -> np.ndarray:
        """Variance of each channel, [C]."""
        return np.diagonal(self.covariance)

    @property
    def shrunk_covariance(self) -> np.ndarray:
        """Covariance shrunk towards its diagonal, more strongly with fewer pixels per channel."""
        channels = len(self.mean)
        intensity = max(LEAST_SHRINKAGE, channels / (channels + self.count))
        shrunk = (1 - intensity) * self.covariance
        np.fill_diagonal(shrunk, self.variance)
        return shrunk


def measure(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns the moments of the input channels of every convolution, by path.

    Args:
      model, variables: network and its variables, in floating point.
      images: batches uint8 [N, H, W, C] of equal shape.

    Raises:
      DeepLabError: there is no image.
    """
    function = input_statistics(model, _batch_moments)
    total: dict[Path, tuple[np.ndarray, ...]] = {}
    count = 0
    for batch in images:
        count += 1
        found = jax.tree.map(np.float64, jax.device_get(function(variables, batch)))
        for path, (mean, covariance, pixels) in found.items():
            # Moments about zero can be summed over batches; double precision limits cancellation.
            moments = mean, covariance + np.outer(mean, mean), pixels
            total[path] = tuple(map(np.add, total.get(path, (0, 0, 0)), moments))
    if not count:
        raise DeepLabError("pruning needs at least one image to measure channels on")
    return {"/".join(path): _moments(sums, count) for path, sums in total.items()}


def _batch_moments(inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean [c] and covariance [c, c] of the channels, and the number of pixels."""
    pixels = inputs.reshape(-1, inputs.shape[-1])
    mean = pixels.mean(0)
    products = jnp.dot((pixels - mean).T, pixels - mean, precision=jax.lax.Precision.HIGHEST)
    return mean, products / len(pixels), jnp.float32(len(pixels))


def _moments(sums: Sequence[np.ndarray], batches: int) -> Moments:
    """Returns the moments from sums over batches: of means, products and numbers of pixels."""
    means, products, pixels = sums
    mean = means / batches
    covariance = products / batches - np.outer(mean, mean)
    # The variance of a constant channel is rounding error.
    constant = np.diagonal(covariance) <= ROUNDING * mean**2
    covariance[constant] = covariance[:, constant] = 0
    return Moments(mean, covariance, round(float(pixels)))


def elimination_costs(covariance: np.ndarray, gram: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Returns the cost of removing each input channel of a convolution, in greedy elimination.

    The cheapest channel is removed first. Each removed channel is predicted from the remaining ones
    by least squares, as in `compensated`. Its cost is the variance of the convolution's output that
    this prediction does not explain. If two channels are equal, removing the first costs nothing,
    and removing the second then costs much.

    Args:
      covariance: covariance of the input channels, [C, C]; zeros for channels without variance.
      gram: inner product of the kernels of each pair of input channels, summed over taps and output
        channels, [C, C].
      free: mask of the channels that may be removed, bool [C].

    Returns:
      float64 [C], non-decreasing in the order of elimination; 0 for channels that are not free.

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
    """Updates both matrices in place after a channel is removed.

    The kernels of the removed channel are added to those of the other channels, so that the outputs
    change as little as possible.

    Args:
      precision: inverse of the covariance of the channels.
      gram: inner product of the kernels of each pair of channels.
      channel: index of the removed channel.
    """
    column, pivot = precision[:, channel].copy(), precision[channel, channel]
    slopes = column / pivot
    precision -= np.outer(slopes, column)
    precision[channel] = precision[:, channel] = 0
    read = gram[channel].copy()
    moved = np.outer(slopes, read)
    gram += read[channel] * np.outer(slopes, slopes) - moved - moved.T
    gram[channel] = gram[:, channel] = 0


def _reconstruction(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    """Returns, for each channel, the lost fraction of output variance per saved multiply-add.

    The fraction is summed over the layers that take the channel as input.
    """
    folded = flatten_dict(fold(model, variables)[1]["params"], sep="/")
    fixed = np.isin(np.arange(graph.num_channels), list(graph.fixed))
    lost = np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        known = layer.inputs != NO_CHANNEL
        free = known & ~fixed[layer.inputs]
        if layer.depthwise or not free.any():
            continue
        kernel = folded[f"{path}/kernel"].astype(np.float64)
        gram = np.einsum("ijco,ijdo->cd", kernel, kernel, optimize=True)
        covariance = moments[path].shrunk_covariance
        costs = elimination_costs(covariance, gram, free)
        np.add.at(lost, layer.inputs[known], costs[known] / max((gram * covariance).sum(), 1e-30))
    return lost / np.maximum(graph.macs_of_channels(), 1)


def _relative_magnitudes(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Any, *, parameter: str
) -> np.ndarray:
    """Returns the L1 norm of each channel's weights, divided by the mean over its layer."""
    flat, scores = flatten_dict(variables["params"], sep="/"), np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        # For `norm/scale`, a depthwise convolution overrides the layer that computes the channel.
        if f"{path}/{parameter}" in flat and not (layer.depthwise and parameter == "kernel"):
            weights = np.abs(flat[f"{path}/{parameter}"])
            known = layer.outputs != NO_CHANNEL
            scores[layer.outputs[known]] = weights.sum(tuple(range(weights.ndim - 1)))[known]
    relative = scores.copy()
    for layer in graph.layers.values():
        if not layer.depthwise:
            relative[layer.outputs] /= max(scores[layer.outputs].mean(), 1e-30)
    return relative


Score = Callable[[ChannelGraph, DeepLab, Any, Any], np.ndarray]
SCORES: Mapping[str, Score] = {
    "reconstruction": _reconstruction,
    "batch_norm_scale": functools.partial(_relative_magnitudes, parameter="norm/scale"),
    "norm": functools.partial(_relative_magnitudes, parameter="kernel"),
}
CRITERIA = tuple(SCORES)
