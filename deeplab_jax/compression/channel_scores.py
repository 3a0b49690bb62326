"""Importance scores that rank the channels of a network for pruning."""

import dataclasses
import functools
import itertools
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

# Minimum intensity, 0..1, with which a covariance is shrunk; see `Moments.shrunk_covariance`.
LEAST_SHRINKAGE = 1e-4
# Maximum variance, divided by the squared mean, of a channel that is treated as constant.
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
        """Covariance with off-diagonal entries that are shrunk toward 0, [C, C].

        These entries are multiplied by 1 − s, where s is the larger of C / (C + count) and 10⁻⁴.
        This reduces the errors of a covariance that is estimated from few pixels.
        """
        channels = len(self.mean)
        intensity = max(LEAST_SHRINKAGE, channels / (channels + self.count))
        shrunk = (1 - intensity) * self.covariance
        np.fill_diagonal(shrunk, self.variance)
        return shrunk


def measure(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns the moments of the input channels of every convolution, by path of the convolution.

    Args:
      model, variables: network and its variables, in floating point.
      images: batches uint8 [N, H, W, C] of equal shape.

    Raises:
      DeepLabError: `images` is empty.
    """
    function = input_statistics(model, _batch_moments)
    total: dict[Path, tuple[np.ndarray, ...]] = {}
    count = 0
    for batch in images:
        count += 1
        found = jax.tree.map(np.float64, jax.device_get(function(variables, batch)))
        for path, (mean, covariance, pixels) in found.items():
            # Moments about zero can be summed over batches. In double precision, little is lost
            # when the squared mean is subtracted later.
            moments = mean, covariance + np.outer(mean, mean), pixels
            total[path] = tuple(map(np.add, total.get(path, (0, 0, 0)), moments))
    if not count:
        raise DeepLabError(
            "pruning requires at least one image to compute the scores of channels; got none"
        )
    return {"/".join(path): _moments(sums, count) for path, sums in total.items()}


def _batch_moments(inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean [C] and covariance [C, C] of the channels in a batch, and its pixel count."""
    pixels = inputs.reshape(-1, inputs.shape[-1])
    mean = pixels.mean(0)
    products = jnp.dot((pixels - mean).T, pixels - mean, precision=jax.lax.Precision.HIGHEST)
    return mean, products / len(pixels), jnp.float32(len(pixels))


def _moments(sums: Sequence[np.ndarray], batches: int) -> Moments:
    """Returns the moments over all batches, which have the same number of pixels.

    Args:
      sums: sum over the batches of the mean [C], of the second moment about zero [C, C] (the
        covariance plus the outer product of the mean with itself), and of the number of pixels.
      batches: number of batches.
    """
    means, products, pixels = sums
    mean = means / batches
    covariance = products / batches - np.outer(mean, mean)
    # The variance of a constant channel is rounding error.
    constant = np.diagonal(covariance) <= ROUNDING * mean**2
    covariance[constant] = covariance[:, constant] = 0
    return Moments(mean, covariance, round(float(pixels)))


def elimination_costs(covariance: np.ndarray, gram: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Returns the cost of removing each input channel of a convolution, in greedy elimination.

    In each step, the channel with the lowest cost is removed and replaced by a least-squares
    prediction from the remaining channels. The cost is the variance of the convolution's output
    that this prediction does not explain. For example, if two channels are equal, the one that is
    removed first costs nothing, and the other one has its full cost.

    Args:
      covariance: covariance of the input channels, [C, C]; zeros for constant channels.
      gram: inner products of the kernels of all pairs of input channels, [C, C]. The products are
        summed over the kernel positions and the output channels.
      free: mask of the channels that may be removed, bool [C].

    Returns:
      Costs, float64 [C]. A cost that is smaller than that of a channel removed earlier is raised to
      the earlier cost. The cost is 0 for constant channels and for channels that must not be
      removed.

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
    """Updates `precision` and `gram` in place after a channel is removed.

    The kernels are assumed to compensate for the removal, so that the output of the convolution
    changes as little as possible: the kernel of the removed channel, times the least-squares
    slopes, is added to the kernels of the other channels. The new `gram` belongs to these kernels.

    Args:
      precision: inverse of the covariance of the channels, [C, C].
      gram: inner products of the kernels of all pairs of channels, [C, C].
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
    """Returns the scores of the pruning criterion `reconstruction`, float64 [graph.num_channels].

    For each dense convolution that reads a channel, the loss is the cost of the channel (see
    `elimination_costs`), divided by the variance of the output of the convolution. The score of the
    channel is the sum of these losses, divided by the number of multiply-adds that produce or
    consume the channel.
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
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Any, *, parameters: Sequence[str]
) -> np.ndarray:
    """Returns the L1 norm of the weights of each channel, divided by the mean norm in its layer.

    Args:
      graph, model, variables: channel graph, network, and variables of the network.
      moments: not used; all functions in `SCORES` have this parameter.
      parameters: names of the parameters that contain the weights: `norm/scale` for the scale γ of
        batch normalization, and `kernel`. If both are given, `kernel` is used only for channels
        without a scale, and for layers whose scales are all equal. A batch normalization that was
        folded into its kernel has the scale 1 in all channels.

    Returns:
      float64 [graph.num_channels].
    """
    flat = flatten_dict(variables["params"], sep="/")
    scores, scored = np.zeros(graph.num_channels), np.zeros(graph.num_channels, bool)
    for parameter, (path, layer) in itertools.product(parameters, graph.layers.items()):
        outputs = layer.outputs[layer.outputs != NO_CHANNEL]
        # With `norm/scale`, the scale of a depthwise convolution replaces that of the dense one
        # before it, which has the same channels. A gate also has the channels of the map that it
        # multiplies, but its kernel does not compute them.
        done = parameter == "kernel" and scored[outputs].any()
        if f"{path}/{parameter}" not in flat or done:
            continue
        weights = np.abs(flat[f"{path}/{parameter}"])
        norms = weights.sum(tuple(range(weights.ndim - 1)))
        if parameter == "norm/scale" and (norms == norms[0]).all():
            continue
        scores[outputs] = norms[layer.outputs != NO_CHANNEL]
        scored[outputs] = True
    relative = scores.copy()
    for layer in graph.layers.values():
        # A layer and its gate have the same channels, so this may assign the same values twice.
        if not layer.depthwise:
            mean = max(scores[layer.outputs].mean(), 1e-30)
            relative[layer.outputs] = scores[layer.outputs] / mean
    return relative


Score = Callable[[ChannelGraph, DeepLab, Any, Any], np.ndarray]
SCORES: Mapping[str, Score] = {
    "reconstruction": _reconstruction,
    "batch_norm_scale": functools.partial(
        _relative_magnitudes, parameters=("norm/scale", "kernel")
    ),
    "norm": functools.partial(_relative_magnitudes, parameters=("kernel",)),
}
CRITERIA = tuple(SCORES)
