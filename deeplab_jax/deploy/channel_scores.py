"""How much each channel of a network matters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.deploy.channel_elimination import elimination_costs
from deeplab_jax.deploy.channel_moments import Moments
from deeplab_jax.deploy.pruning_graph import NO_CHANNEL, ChannelGraph
from deeplab_jax.deploy.variable_paths import by_path
from deeplab_jax.models import DeepLab, fold

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
