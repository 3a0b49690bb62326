"""Structured pruning: removes channels and compensates the layers that read them."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.checkpointing import SEGMENTATION, StoredModel
from deeplab_jax.compression.calibration import Flat, Path, by_path, nested
from deeplab_jax.compression.channel_scores import CRITERIA, SCORES, Moments, measure
from deeplab_jax.compression.pruning_graph import ChannelGraph, Layer, channel_graph
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models import create_model


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


# Legal at every output stride; what is built does not depend on it.
PROBE_SIZE = (65, 65)


def cut(graph: ChannelGraph, variables: Any, kept: np.ndarray) -> dict[str, Any]:
    """Returns variables without the channels that go.

    Args:
      graph: of the network.
      variables: of it.
      kept: bool [num_channels].
    """
    flat, stays = by_path(variables), np.append(kept, True)
    for path, layer in graph.layers.items():
        names = tuple(path.split("/"))
        kernel = ("params", *names, "kernel")
        outputs = stays[layer.outputs]
        flat[kernel] = flat[kernel][..., outputs]
        if not layer.depthwise:
            flat[kernel] = flat[kernel][:, :, stays[layer.inputs]]
        for vector in _vectors(flat, names):
            flat[vector] = flat[vector][outputs]
    return nested(flat, variables)


def _vectors(flat: Flat, names: Path) -> list[Path]:
    """The paths of a layer's bias, or of its normalisation's parameters and statistics."""
    parts = [("params", "bias"), ("params", "norm", "scale"), ("params", "norm", "bias")]
    parts += [("batch_stats", "norm", "mean"), ("batch_stats", "norm", "var")]
    paths = [(first, *names, *rest) for first, *rest in parts]
    return [path for path in paths if path in flat]


def narrower_widths(
    stored: StoredModel, graph: ChannelGraph, kept: np.ndarray, pruned: Any
) -> tuple[tuple[str, int], ...]:
    """Returns the architecture's `widths` with which it has the shapes of pruned variables.

    A layer whose designed width follows from a narrower one's is named even where it stays.

    Raises:
      DeepLabError: narrower layers would make it another network.
    """
    widths = dict(stored.model.architecture.widths)
    for path, layer in graph.layers.items():
        if not layer.depthwise and not kept[layer.outputs].all():
            widths[path] = int(kept[layer.outputs].sum())
    wanted = {path: array.shape for path, array in by_path(pruned["params"]).items()}
    designed = _designed(stored, widths)
    for path, layer in graph.layers.items():
        kernel = (*path.split("/"), "kernel")
        if not layer.depthwise and designed.get(kernel, wanted[kernel])[3] != wanted[kernel][3]:
            widths[path] = wanted[kernel][3]
    if _designed(stored, widths) != wanted:
        raise DeepLabError("this architecture's layers do not follow the widths of those before")
    return tuple(sorted(widths.items()))


def _designed(stored: StoredModel, widths: Mapping[str, int]) -> dict[Path, tuple[int, ...]]:
    changes = {"widths": tuple(widths.items())}
    overrides = stored.description.overrides | changes
    model = create_model(stored.description.architecture, **overrides)
    image = jnp.zeros((1, *PROBE_SIZE, model.architecture.in_channels), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in by_path(shapes["params"]).items()}


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
    model, variables = stored.model, jax.device_get(stored.variables)
    graph = channel_graph(model, size)
    moments = measure(model, variables, images)
    scores = SCORES[criterion](graph, model, variables, moments)
    kept = choose(graph, scores, macs, multiple)
    pruned = cut(graph, compensated(graph, variables, moments, kept), kept)
    widths = narrower_widths(stored, graph, kept, pruned)
    description = dataclasses.replace(
        stored.description,
        overrides=stored.description.overrides | {"widths": widths},
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
