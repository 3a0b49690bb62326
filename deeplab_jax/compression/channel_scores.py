"""Importance of each channel, and what its removal costs the layers that read it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.compression.calibration import by_path
from deeplab_jax.compression.channel_moments import Moments
from deeplab_jax.compression.pruning_graph import NO_CHANNEL, ChannelGraph
from deeplab_jax.models import DeepLab, fold


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
