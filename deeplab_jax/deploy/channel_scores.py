"""How much each channel of a network matters."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.deploy.convolution_inputs import input_statistics
from deeplab_jax.deploy.pruning_graph import NO_CHANNEL, ChannelGraph
from deeplab_jax.deploy.variable_paths import by_path
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import DeepLab, fold

CRITERIA = ("contribution", "batch_norm_scale", "norm")


class Moments(NamedTuple):
    """Mean and variance of a convolution's inputs, by channel [C]."""

    mean: np.ndarray
    variance: np.ndarray


def measure(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns mean and variance of every convolution's inputs over images.

    Args:
      model, variables: of floating-point numbers.
      images: batches uint8 [N, H, W, C].

    Raises:
      DeepLabError: there is no image.
    """
    function = input_statistics(model, _means)
    batches = [jax.device_get(function(variables, batch)) for batch in images]
    if not batches:
        raise DeepLabError("pruning needs at least one image to measure channels on")
    moments = {}
    for path in batches[0]:
        mean, square = np.mean([batch[path] for batch in batches], axis=0, dtype=np.float64)
        moments["/".join(path)] = Moments(mean, np.maximum(square - mean**2, 0))
    return moments


def _means(inputs: jax.Array) -> jax.Array:
    """Returns [2, c]: the mean of each channel and of its square."""
    return jnp.stack([jnp.mean(inputs, (0, 1, 2)), jnp.mean(inputs**2, (0, 1, 2))])


def _contributions(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    """How far the readers' outputs vary with each channel, in units of what they pass on."""
    folded = by_path(fold(model, variables)[1]["params"])
    energy = np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        if layer.depthwise:
            continue
        norms = np.square(folded[(*path.split("/"), "kernel")]).sum((0, 1, 3))
        known = layer.inputs != NO_CHANNEL
        np.add.at(energy, layer.inputs[known], (moments[path].variance * norms)[known])
    return np.sqrt(energy)


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
    return scores


def _kernel_norms(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    flat, scores = by_path(variables["params"]), np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        if not layer.depthwise:
            kernel = flat[(*path.split("/"), "kernel")]
            scores[layer.outputs] = np.abs(kernel).sum((0, 1, 2))
    return scores


SCORES = dict(zip(CRITERIA, (_contributions, _batch_norm_scales, _kernel_norms), strict=True))
