"""What channels that go gave to their readers, told from the channels that stay."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.deploy.channel_moments import Moments
from deeplab_jax.deploy.pruning_graph import ChannelGraph
from deeplab_jax.deploy.variable_paths import Flat, Path, by_path, nested


def compensated(
    graph: ChannelGraph, variables: Any, moments: Mapping[str, Moments], kept: np.ndarray
) -> dict[str, Any]:
    """Returns variables whose kernels and biases make up for channels that go.

    Each channel that goes is told from those that stay as a linear function, by least squares over
    the pixels of the images; what its readers made of it they then make of that. A constant channel
    moves into the biases, a copy of another one into the other's kernels, and leave no trace (but
    at the borders, where a kernel reads padding).

    Args:
      graph: of the network.
      variables: of it.
      moments: of every convolution's inputs.
      kept: bool [num_channels].

    Source: He, Zhang and Sun, arXiv 1707.06168, section 3.1, solved in closed form.
    """
    flat, stays = by_path(variables), np.append(kept, True)
    for path, layer in graph.layers.items():
        staying = stays[layer.inputs]
        if layer.depthwise or staying.all():
            continue
        names = tuple(path.split("/"))
        slopes, offsets = _told_from(moments[path], staying)
        kernel = ("params", *names, "kernel")
        given = flat[kernel][:, :, ~staying].astype(np.float64)
        changed = flat[kernel].copy()
        changed[:, :, staying] += np.einsum("ijgo,kg->ijko", given, slopes).astype(changed.dtype)
        flat[kernel] = changed
        place, sign = _bias(flat, names)
        shift = np.einsum("ijgo,g->o", given, offsets)
        flat[place] = (flat[place] + sign * shift).astype(flat[place].dtype)
    return nested(flat, variables)


def _told_from(moments: Moments, staying: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns slopes [kept, gone] and offsets [gone] of the channels that go."""
    covariance, mean = moments.shrunk_covariance, moments.mean
    # Channels that never vary tell nothing, and would make the equations singular.
    telling = staying & (moments.variance > 0)
    slopes = np.zeros((int(staying.sum()), int((~staying).sum())))
    known = covariance[np.ix_(telling, telling)]
    slopes[telling[staying]] = np.linalg.solve(known, covariance[np.ix_(telling, ~staying)])
    return slopes, mean[~staying] - mean[staying] @ slopes


def _bias(flat: Flat, names: Path) -> tuple[Path, int]:
    """Returns where a layer's bias is, and with which sign it holds what is added."""
    statistics = ("batch_stats", *names, "norm", "mean")
    return (statistics, -1) if statistics in flat else (("params", *names, "bias"), 1)
