"""Which channels matter, from the moments of the layers that read them."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.compression.calibration import by_path, input_statistics
from deeplab_jax.compression.pruning_graph import NO_CHANNEL, ChannelGraph
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import DeepLab, fold

# Of what is taken for noise at least, relative to each channel's variance.
LEAST_SHRINKAGE = 1e-4
# Variance of a channel that is constant but for single precision, relative to its square.
ROUNDING = 1e-10


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of a convolution's inputs over all pixels.

    Attributes:
      mean: of each channel, [C].
      covariance: [C, C].
      count: pixels that they were measured on.
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
        """The covariance, the nearer to its diagonal the fewer pixels a channel there were."""
        channels = len(self.mean)
        share = max(LEAST_SHRINKAGE, channels / (channels + self.count))
        shrunk = (1 - share) * self.covariance
        np.fill_diagonal(shrunk, self.variance)
        return shrunk


def measure(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns the moments of every convolution's inputs over images.

    Args:
      model, variables: of floating-point numbers.
      images: batches uint8 [N, H, W, C], all of one shape.

    Raises:
      DeepLabError: there is no image.
    """
    function = input_statistics(model, _of_one_batch)
    total: Any = None
    count = 0
    for batch in images:
        found = jax.tree.map(np.float64, jax.device_get(function(variables, batch)))
        # About zero, in double precision: these can be added up.
        sums = {
            path: (mean, covariance + np.outer(mean, mean), pixels)
            for path, (mean, covariance, pixels) in found.items()
        }
        total = sums if total is None else jax.tree.map(np.add, total, sums)
        count += 1
    if total is None:
        raise DeepLabError("pruning needs at least one image to measure channels on")
    return {"/".join(path): _moments(*sums, count) for path, sums in total.items()}


def _of_one_batch(inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean, [c], and covariance, [c, c], of the channels, and the number of pixels."""
    pixels = inputs.reshape(-1, inputs.shape[-1])
    mean = pixels.mean(0)
    products = jnp.dot((pixels - mean).T, pixels - mean, precision=jax.lax.Precision.HIGHEST)
    return mean, products / len(pixels), jnp.float32(len(pixels))


def _moments(mean: np.ndarray, products: np.ndarray, pixels: np.ndarray, batches: int) -> Moments:
    mean = mean / batches
    covariance = products / batches - np.outer(mean, mean)
    # What is left of a constant channel after rounding is no variance.
    constant = np.diagonal(covariance) <= ROUNDING * mean**2
    covariance[constant] = covariance[:, constant] = 0
    return Moments(mean, covariance, round(float(pixels)))


def elimination_costs(covariance: np.ndarray, gram: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Returns what each channel costs when the cheapest goes first, and then the next.

    A removed channel is predicted from the remaining ones by least squares, as `compensated`
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


CRITERIA = ("reconstruction", "batch_norm_scale", "norm")


def _reconstruction(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    """Share of its readers' variance that is lost with a channel, a multiply-add that it costs."""
    folded = by_path(fold(model, variables)[1]["params"])
    fixed = np.isin(np.arange(graph.num_channels), list(graph.fixed))
    lost = np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        known = layer.inputs != NO_CHANNEL
        free = known & ~fixed[layer.inputs]
        if layer.depthwise or not free.any():
            continue
        kernel = folded[(*path.split("/"), "kernel")].astype(np.float64)
        gram = np.einsum("ijco,ijdo->cd", kernel, kernel, optimize=True)
        covariance = moments[path].shrunk_covariance
        costs = elimination_costs(covariance, gram, free)
        np.add.at(lost, layer.inputs[known], costs[known] / max((gram * covariance).sum(), 1e-30))
    return lost / np.maximum(graph.macs_of_channels(), 1)


def _batch_norm_scales(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    flat, scores = by_path(variables["params"]), np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        name = (*path.split("/"), "norm", "scale")
        if name in flat:
            known = layer.outputs != NO_CHANNEL
            # A depthwise convolution comes after the one that made the channel: its scale counts.
            scores[layer.outputs[known]] = np.abs(flat[name])[known]
    return _relative(graph, scores)


def _kernel_norms(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    flat, scores = by_path(variables["params"]), np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        if not layer.depthwise:
            kernel = flat[(*path.split("/"), "kernel")]
            scores[layer.outputs] = np.abs(kernel).sum((0, 1, 2))
    return _relative(graph, scores)


def _relative(graph: ChannelGraph, scores: np.ndarray) -> np.ndarray:
    """Returns scores relative to the mean of the layer that makes the channels."""
    relative = scores.copy()
    for layer in graph.layers.values():
        if not layer.depthwise:
            mean = scores[layer.outputs].mean()
            relative[layer.outputs] = scores[layer.outputs] / max(mean, 1e-30)
    return relative


SCORES = dict(zip(CRITERIA, (_reconstruction, _batch_norm_scales, _kernel_norms), strict=True))
