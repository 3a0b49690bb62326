"""Structured pruning: a network with fewer channels, really smaller."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from deeplab_jax.deploy.calibration import unrolled
from deeplab_jax.deploy.folding import fold
from deeplab_jax.deploy.pruning_graph import (
    NO_CHANNEL,
    ChannelGraph,
    Layer,
    channel_graph,
)
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.layers import is_convolution
from deeplab_jax.model_store import SEGMENTATION, StoredModel
from deeplab_jax.models import DeepLab, create_model

CRITERIA = ("contribution", "batch_norm_scale", "norm")
# Of each layer's channels at least this share stays.
LEAST_SHARE = 0.1
# Legal at every output stride; what is built does not depend on it.
PROBE_SIZE = (65, 65)

Path = tuple[str, ...]
Flat = dict[Path, np.ndarray]


class Moments(NamedTuple):
    """Mean and variance of a convolution's inputs, by channel [C]."""

    mean: np.ndarray
    variance: np.ndarray


def prune_channels(
    stored: StoredModel,
    images: Iterable[np.ndarray],
    macs: float,
    *,
    size: tuple[int, int],
    criterion: str = "contribution",
    multiple: int = 8,
) -> StoredModel:
    """Returns a model without the channels that matter least.

    What a channel that is taken away gave to its readers on average is added to their biases.

    Args:
      stored: a model of floating-point numbers.
      images: batches uint8 [N, H, W, 3] on which channels are measured.
      macs: share of the multiply-adds that may stay, in (0, 1].
      size: (H, W) of the image whose multiply-adds are counted.
      criterion: `contribution`: variance of the channel on the images times the squared norm of
        the kernels that read it; `batch_norm_scale`: |γ| (arXiv 1708.06519); `norm`: the L1 norm
        of the kernel that makes it (arXiv 1608.08710). Each relative to its layer's mean.
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


def measure(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns mean and variance of every convolution's inputs over images.

    Args:
      model, variables: of floating-point numbers.
      images: batches uint8 [N, H, W, C].

    Raises:
      DeepLabError: there is no image.
    """
    function = jax.jit(_measurement(model))
    batches = [jax.device_get(function(variables, batch)) for batch in images]
    if not batches:
        raise DeepLabError("pruning needs at least one image to measure channels on")
    moments = {}
    for path in batches[0]:
        mean, square = np.mean([batch[path] for batch in batches], axis=0, dtype=np.float64)
        moments["/".join(path)] = Moments(mean, np.maximum(square - mean**2, 0))
    return moments


def _measurement(model: DeepLab) -> Callable[[Any, jax.Array], dict[Path, jax.Array]]:
    def measure_batch(variables: Any, images: jax.Array) -> dict[Path, jax.Array]:
        found: dict[Path, list[jax.Array]] = {}

        def record(call, arguments, keywords, context):
            if is_convolution(context.module, context.method_name):
                inputs = arguments[0].astype(jnp.float32)
                sums = jnp.stack([jnp.mean(inputs, (0, 1, 2)), jnp.mean(inputs**2, (0, 1, 2))])
                found.setdefault(context.module.path, []).append(sums)
            return call(*arguments, **keywords)

        with nn.intercept_methods(record):
            model.apply(variables, images, train=False)
        return {path: jnp.stack(several).mean(0) for path, several in found.items()}

    return measure_batch


def _contributions(
    graph: ChannelGraph, model: DeepLab, variables: Any, moments: Mapping[str, Moments]
) -> np.ndarray:
    """How far the readers' outputs vary with each channel, in units of what they pass on."""
    folded = _by_path(fold(model, variables)["params"])
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
    flat, scores = _by_path(variables["params"]), np.zeros(graph.num_channels)
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
    flat, scores = _by_path(variables["params"]), np.zeros(graph.num_channels)
    for path, layer in graph.layers.items():
        if not layer.depthwise:
            kernel = flat[(*path.split("/"), "kernel")]
            scores[layer.outputs] = np.abs(kernel).sum((0, 1, 2))
    return scores


SCORES = dict(zip(CRITERIA, (_contributions, _batch_norm_scales, _kernel_norms), strict=True))


def choose(graph: ChannelGraph, scores: np.ndarray, macs: float, multiple: int = 1) -> np.ndarray:
    """Returns which channels stay, so that at most a share of the multiply-adds does.

    Those go whose score is lowest relative to the mean of their layer, over all layers alike.

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
    relative = [scores[channels] / max(scores[channels].mean(), 1e-30) for channels in makers]
    everything = np.ones(graph.num_channels, bool)
    target = macs * graph.macs(everything)

    def kept_above(threshold: float) -> np.ndarray:
        kept = everything.copy()
        for channels, values in zip(makers, relative, strict=True):
            wanted = max(int((values > threshold).sum()), math.ceil(LEAST_SHARE * len(values)))
            count = min(-(-wanted // multiple) * multiple, len(values))
            order = np.argsort(-values, kind="stable")
            kept[channels[order[count:]]] = False
        return kept

    thresholds = np.unique(np.concatenate([[-1.0], *relative]))
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


def compensated(
    graph: ChannelGraph, variables: Any, moments: Mapping[str, Moments], kept: np.ndarray
) -> dict[str, Any]:
    """Returns variables in which biases hold what channels that go gave to them on average.

    Args:
      graph: of the network.
      variables: of it.
      moments: of every convolution's inputs.
      kept: bool [num_channels].
    """
    flat, stays = _by_path(variables), np.append(kept, True)
    for path, layer in graph.layers.items():
        gone = ~stays[layer.inputs]
        if layer.depthwise or not gone.any():
            continue
        names = tuple(path.split("/"))
        kernel = flat[("params", *names, "kernel")].sum((0, 1))
        given = (moments[path].mean * gone) @ kernel
        if ("batch_stats", *names, "norm", "mean") in flat:
            place, sign = ("batch_stats", *names, "norm", "mean"), -1
        else:
            place, sign = ("params", *names, "bias"), 1
        flat[place] = (flat[place] + sign * given).astype(flat[place].dtype)
    return _nested(flat, variables)


def cut(graph: ChannelGraph, variables: Any, kept: np.ndarray) -> dict[str, Any]:
    """Returns variables without the channels that go.

    Args:
      graph: of the network.
      variables: of it.
      kept: bool [num_channels].
    """
    flat, stays = _by_path(variables), np.append(kept, True)
    for path, layer in graph.layers.items():
        names = tuple(path.split("/"))
        kernel = ("params", *names, "kernel")
        outputs = stays[layer.outputs]
        flat[kernel] = flat[kernel][..., outputs]
        if not layer.depthwise:
            flat[kernel] = flat[kernel][:, :, stays[layer.inputs]]
        for vector in _vectors(flat, names):
            flat[vector] = flat[vector][outputs]
    return _nested(flat, variables)


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
    wanted = {path: array.shape for path, array in _by_path(pruned["params"]).items()}
    designed = _designed(stored, widths)
    for path, layer in graph.layers.items():
        kernel = (*path.split("/"), "kernel")
        if not layer.depthwise and designed.get(kernel, wanted[kernel])[3] != wanted[kernel][3]:
            widths[path] = wanted[kernel][3]
    if _designed(stored, widths) != wanted:
        raise DeepLabError("this architecture's layers do not follow the widths of those before")
    return tuple(sorted(widths.items()))


def _designed(stored: StoredModel, widths: Mapping[str, int]) -> dict[Path, tuple[int, ...]]:
    overrides = stored.description.overrides | {"widths": tuple(widths.items())}
    model = create_model(stored.description.architecture, **overrides)
    image = jnp.zeros((1, *PROBE_SIZE, model.architecture.in_channels), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in _by_path(shapes["params"]).items()}


def _by_path(tree: Any) -> Flat:
    """Returns the leaves by path; a module's name such as `block1/unit_1` is two steps of it."""
    flat = traverse_util.flatten_dict(tree)
    return {tuple("/".join(path).split("/")): leaf for path, leaf in flat.items()}


def _nested(flat: Flat, like: Any) -> dict[str, Any]:
    """Returns leaves by path as a tree of the same structure as another."""
    paths = traverse_util.flatten_dict(like)
    return traverse_util.unflatten_dict(
        {path: flat[tuple("/".join(path).split("/"))] for path in paths}
    )
