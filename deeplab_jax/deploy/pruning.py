"""Structured pruning: a network with fewer channels, really smaller."""

import dataclasses
import math
from collections.abc import Iterable

import jax
import numpy as np

from deeplab_jax.deploy.calibration import unrolled
from deeplab_jax.deploy.channel_compensation import compensated
from deeplab_jax.deploy.channel_cutting import cut, narrower_widths
from deeplab_jax.deploy.channel_moments import measure
from deeplab_jax.deploy.channel_scores import CRITERIA, SCORES
from deeplab_jax.deploy.pruning_graph import ChannelGraph, Layer, channel_graph
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.model_store import SEGMENTATION, StoredModel

# Of each layer's channels at least this share stays.
LEAST_SHARE = 0.1


def prune_channels(
    stored: StoredModel,
    images: Iterable[np.ndarray],
    macs: float,
    *,
    size: tuple[int, int],
    criterion: str = "reconstruction",
    multiple: int = 8,
) -> StoredModel:
    """Returns a model without the channels that matter least.

    What channels that are taken away gave to their readers is told from those that stay, as far as
    it can be: `compensated`.

    Args:
      stored: a model of floating-point numbers.
      images: batches uint8 [N, H, W, 3] on which channels are measured.
      macs: share of the multiply-adds that may stay, in (0, 1].
      size: (H, W) of the image whose multiply-adds are counted.
      criterion: `reconstruction`: the share of its readers' variance that nobody makes up for, to
        the multiply-adds that it saves; `batch_norm_scale`: |γ| (arXiv 1708.06519), or `norm`: the
        L1 norm of the kernel that makes it (arXiv 1608.08710), relative to its layer's mean.
      multiple: widths are rounded up to multiples of it, which hardware likes; 1: any width.

    Raises:
      DeepLabError: the model cannot be pruned, a value is illegal, or so few multiply-adds cannot
        be reached.
    """
    check_prunable(stored)
    if not 0 < macs <= 1:
        raise DeepLabError(f"macs={macs} must be in (0, 1]: the share that may stay")
    if criterion not in CRITERIA:
        raise unknown_name("criterion", criterion, CRITERIA)
    model, variables = unrolled(stored.model), jax.device_get(stored.variables)
    graph = channel_graph(model, size)
    moments = measure(model, variables, images)
    scores = SCORES[criterion](graph, model, variables, moments)
    kept = choose(graph, scores, macs, multiple)
    pruned = cut(graph, compensated(graph, variables, moments, kept), kept)
    widths = narrower_widths(stored, graph, kept, pruned)
    description = dataclasses.replace(
        stored.description,
        overrides=stored.description.overrides | {"widths": widths, "scan_units": False},
        source=stored.description.source
        | {"pruned": {"criterion": criterion, "macs": graph.macs(kept) / graph.macs(kept | True)}},
    )
    return StoredModel(description.create_model(), pruned, description)


def check_prunable(stored: StoredModel) -> None:
    """Checks before any work that a model can be pruned.

    Raises:
      DeepLabError: it cannot.
    """
    if stored.description.task != SEGMENTATION:
        raise DeepLabError("only networks for segmentation are pruned, not classifiers")
    if stored.model.architecture.quantization != "none":
        raise DeepLabError("a quantised model cannot be pruned; prune first, then quantise")


def choose(graph: ChannelGraph, scores: np.ndarray, macs: float, multiple: int = 1) -> np.ndarray:
    """Returns which channels stay, so that at most a share of the multiply-adds does.

    Those go whose score is lowest, over all layers alike.

    Args:
      graph: of the network.
      scores: of its channels, [num_channels].
      macs: share that may stay.
      multiple: of a layer's channels, the more if they do not divide.

    Returns:
      bool [num_channels].

    Raises:
      DeepLabError: with every layer at its narrowest there are still more.
    """
    makers = [layer.outputs for layer in graph.layers.values() if _prunable(graph, layer)]
    everything = np.ones(graph.num_channels, bool)
    target = macs * graph.macs(everything)

    def kept_above(threshold: float) -> np.ndarray:
        kept = everything.copy()
        for channels in makers:
            values = scores[channels]
            wanted = max(int((values > threshold).sum()), math.ceil(LEAST_SHARE * len(values)))
            count = min(-(-wanted // multiple) * multiple, len(values))
            order = np.argsort(-values, kind="stable")
            kept[channels[order[count:]]] = False
        return kept

    thresholds = np.unique(np.append(scores[np.concatenate(makers)], -1.0))
    low, high = 0, len(thresholds) - 1
    least = graph.macs(kept_above(thresholds[high]))
    if least > target:
        share = least / graph.macs(everything)
        raise DeepLabError(
            f"macs={macs:g} cannot be reached: at the narrowest {share:.2f} of the multiply-adds "
            "stay, in channels that are added to others or lead to the classes"
        )
    while low < high:
        middle = (low + high) // 2
        if graph.macs(kept_above(thresholds[middle])) <= target:
            high = middle
        else:
            low = middle + 1
    return kept_above(thresholds[low])


def _prunable(graph: ChannelGraph, layer: Layer) -> bool:
    return not layer.depthwise and not graph.fixed.intersection(map(int, layer.outputs))
