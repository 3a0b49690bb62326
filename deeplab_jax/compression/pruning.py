"""Structured pruning: removes channels, and adjusts the layers that took them as input."""

import bisect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from deeplab_jax.checkpointing import SEGMENTATION, StoredModel
from deeplab_jax.compression.calibration import nested
from deeplab_jax.compression.channel_scores import CRITERIA, SCORES, Moments, measure
from deeplab_jax.compression.pruning_graph import ChannelGraph, channel_graph
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.models import create_model


def compensated(
    graph: ChannelGraph, variables: Any, moments: Mapping[str, Moments], kept: np.ndarray
) -> dict[str, Any]:
    """Returns variables in which the convolutions compensate for the channels to be removed.

    The shapes of the variables do not change; `cut` removes the channels afterwards. Depthwise
    convolutions are not adjusted. In every other convolution with removed input channels:

    * Each removed input channel is predicted from the kept input channels by linear least squares,
      over the pixels of the images on which `moments` were measured.
    * The kernel weights for the removed input channel, times the slopes of this prediction, are
      added to the kernel weights for the kept input channels.
    * The offset of the prediction changes the bias, or the mean of the batch normalization.

    If a removed channel equals a kept channel, the kernel weights of the removed channel are added
    to those of the kept channel, up to the small error that `Moments.shrunk_covariance` introduces.
    If a removed channel is constant, the slopes are 0, and the offset is its value. Its removal
    changes the output of the network only at image borders, where convolutions pad it with 0.

    Args:
      graph: channel graph of the network.
      variables: variables of the network.
      moments: moments of the input channels of every convolution, by path of the convolution.
      kept: mask of the kept channels, bool [graph.num_channels].

    Source: He, Zhang and Sun, arXiv 1707.06168, section 3.1, solved in closed form.
    """
    flat, stays = flatten_dict(variables, sep="/"), np.append(kept, True)
    for path, layer in graph.layers.items():
        staying = stays[layer.inputs]
        if layer.depthwise or staying.all():
            continue
        slopes, offsets = _regression(moments[path], staying)
        kernel = f"params/{path}/kernel"
        removed = flat[kernel][:, :, ~staying].astype(np.float64)
        changed = flat[kernel].copy()
        changed[:, :, staying] += np.einsum("ijgo,kg->ijko", removed, slopes).astype(changed.dtype)
        flat[kernel] = changed
        # Batch normalization subtracts its mean. To add the shift to the output, it is subtracted
        # from this mean.
        place, sign = f"batch_stats/{path}/norm/mean", -1
        if place not in flat:
            place, sign = f"params/{path}/bias", 1
        shift = np.einsum("ijgo,g->o", removed, offsets)
        flat[place] = (flat[place] + sign * shift).astype(flat[place].dtype)
    return nested(flat, variables)


def _regression(moments: Moments, staying: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the linear regression of the removed channels on the kept channels.

    Args:
      moments: moments of all C input channels of a convolution.
      staying: mask of the kept channels, bool [C].

    Returns:
      Slopes [number of kept channels, number of removed channels], and offsets [number of removed
      channels]. The prediction is kept @ slopes + offsets.
    """
    covariance, mean = moments.shrunk_covariance, moments.mean
    # Constant channels predict nothing and would make the equations singular.
    varying = staying & (moments.variance > 0)
    slopes = np.zeros((int(staying.sum()), int((~staying).sum())))
    known = covariance[np.ix_(varying, varying)]
    slopes[varying[staying]] = np.linalg.solve(known, covariance[np.ix_(varying, ~staying)])
    return slopes, mean[~staying] - mean[staying] @ slopes


# Variables whose last axis indexes the output channels of a layer, where {} is the path of the
# layer. A layer may lack some of them.
BY_OUTPUT = (
    *("params/{}/kernel", "params/{}/bias", "params/{}/norm/scale", "params/{}/norm/bias"),
    *("batch_stats/{}/norm/mean", "batch_stats/{}/norm/var"),
)


def cut(graph: ChannelGraph, variables: Any, kept: np.ndarray) -> dict[str, Any]:
    """Returns the variables without the array entries that belong to removed channels.

    Args:
      graph: channel graph of the network.
      variables: variables of the network.
      kept: mask of the kept channels, bool [graph.num_channels].
    """
    flat, stays = flatten_dict(variables, sep="/"), np.append(kept, True)
    for path, layer in graph.layers.items():
        for name in (template.format(path) for template in BY_OUTPUT):
            if name in flat:
                flat[name] = flat[name][..., stays[layer.outputs]]
        if not layer.depthwise:
            kernel = f"params/{path}/kernel"
            flat[kernel] = flat[kernel][:, :, stays[layer.inputs]]
    return nested(flat, variables)


# Image size for shape inference. Every network accepts it at every output stride, and the shapes of
# the variables do not depend on it.
PROBE_SIZE = (65, 65)


def narrower_widths(
    stored: StoredModel, graph: ChannelGraph, kept: np.ndarray, pruned: Any
) -> tuple[tuple[str, int], ...]:
    """Returns the value of the keyword `widths` of `create_model` for the pruned network.

    The keyword sets numbers of channels that differ from the design of the architecture. The value
    contains the `widths` of the model before pruning and all layers that lose channels. It also
    contains layers that keep all channels, if their default width depends on the width of a layer
    that loses channels.

    Args:
      stored: model before pruning.
      graph: channel graph of the network.
      kept: mask of the kept channels, bool [graph.num_channels].
      pruned: variables after pruning.

    Returns:
      Pairs (path of a layer, number of its output channels), sorted by path.

    Raises:
      DeepLabError: no value of `widths` results in the shapes of the pruned variables.
    """
    widths = dict(stored.model.architecture.widths)
    for path, layer in graph.layers.items():
        if not layer.depthwise and not kept[layer.outputs].all():
            widths[path] = int(kept[layer.outputs].sum())
    expected = _shapes(pruned)
    designed = _designed(stored, widths)
    for path, layer in graph.layers.items():
        width = expected[f"{path}/kernel"][3]
        if not layer.depthwise and designed.get(f"{path}/kernel", (width,))[-1] != width:
            widths[path] = width
    if _designed(stored, widths) != expected:
        raise DeepLabError(
            "channels of this network cannot be removed, because `widths`, the keyword for numbers "
            "of channels, does not support some layers; omit --structured to prune single weights"
        )
    return tuple(sorted(widths.items()))


def _designed(stored: StoredModel, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    overrides = stored.description.overrides | {"widths": tuple(widths.items())}
    model = create_model(stored.description.architecture, **overrides)
    image = jnp.zeros((1, *PROBE_SIZE, model.architecture.in_channels), jnp.uint8)
    return _shapes(jax.eval_shape(model.init, jax.random.key(0), image))


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    flat = flatten_dict(variables["params"], sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


# Minimum fraction of the channels of each layer that are kept.
LEAST_FRACTION = 0.1


def prune_channels(
    stored: StoredModel,
    images: Iterable[np.ndarray],
    macs: float,
    *,
    size: tuple[int, int],
    criterion: str = "reconstruction",
    multiple: int = 8,
) -> StoredModel:
    """Removes the least important channels of a model.

    In each layer that takes removed channels as input, kernel and bias are adjusted, so that the
    output of the layer changes as little as possible.

    Args:
      stored: model in floating point.
      images: batches [N, H, W, C] of equal shape, on which means and covariances of the channels
        are measured.
      macs: maximum fraction of the multiply-adds to keep, in (0, 1].
      size: (H, W) of the image for which multiply-adds are counted.
      criterion: score for ranking the channels. `reconstruction`: fraction of the output variance
        that a layer loses when this input channel is replaced by a linear prediction from other
        input channels, summed over all layers that take the channel as input, and divided by the
        number of multiply-adds saved. `batch_norm_scale`: absolute value of the channel's
        batch-normalization scale, divided by the mean of these values in the layer (arXiv
        1708.06519), or `norm` in layers without batch normalization or with equal scales in all
        channels. `norm`: L1 norm of the kernel that computes the channel, divided by the mean of
        these norms in the layer (arXiv 1608.08710).
      multiple: pruned layers keep a multiple of this number of channels, rounded up; 1: no
        rounding.

    Raises:
      DeepLabError: the model is a classifier or quantized, `images` is empty, another argument is
        illegal, channels of this network cannot be removed, or even the narrowest possible network
        exceeds the fraction `macs`.
    """
    check_prunable(stored)
    if not 0 < macs <= 1:
        raise DeepLabError(
            f"macs, the fraction of multiply-adds to keep, must be in (0, 1], got {macs}"
        )
    check_name("criterion", criterion, CRITERIA)
    model, variables = stored.model, jax.device_get(stored.variables)
    graph = channel_graph(model, size)
    moments = measure(model, variables, images)
    scores = SCORES[criterion](graph, model, variables, moments)
    kept = choose(graph, scores, macs, multiple)
    pruned = cut(graph, compensated(graph, variables, moments, kept), kept)
    widths = narrower_widths(stored, graph, kept, pruned)
    fraction = graph.macs(kept) / graph.macs(kept | True)
    source = {"pruned": {"criterion": criterion, "macs": fraction}}
    return stored.changed(pruned, {"widths": widths}, stored.description.source | source)


def check_prunable(stored: StoredModel) -> None:
    """Checks that a model is a segmentation network that is not quantized.

    Raises:
      DeepLabError: the model is a classifier or quantized.
    """
    if stored.description.task != SEGMENTATION:
        raise DeepLabError(
            "a model that classifies whole images cannot be pruned; give a segmentation model"
        )
    if stored.model.architecture.quantization != "none":
        raise DeepLabError("a quantized model cannot be pruned; prune first, then quantize")


def choose(graph: ChannelGraph, scores: np.ndarray, macs: float, multiple: int = 1) -> np.ndarray:
    """Selects the channels to keep under a budget of multiply-adds.

    The scores of all layers are compared with one another, and the channels with the lowest scores
    are removed. Every layer keeps at least 10 % of its channels.

    Args:
      graph: channel graph of the network.
      scores: importance of each channel, [graph.num_channels].
      macs: maximum fraction of the multiply-adds to keep, in (0, 1].
      multiple: each layer keeps a multiple of this number of channels, rounded up.

    Returns:
      Mask of the kept channels, bool [graph.num_channels].

    Raises:
      DeepLabError: even the narrowest possible network exceeds the fraction `macs`.
    """
    layers = [layer for layer in graph.layers.values() if not layer.depthwise]
    makers = [layer.outputs for layer in layers if graph.fixed.isdisjoint(layer.outputs.tolist())]
    everything = np.ones(graph.num_channels, bool)
    target = macs * graph.macs(everything)

    def kept_above(threshold: float) -> np.ndarray:
        kept = everything.copy()
        for channels in makers:
            values = scores[channels]
            wanted = max(int((values > threshold).sum()), math.ceil(LEAST_FRACTION * len(values)))
            count = min(-(-wanted // multiple) * multiple, len(values))
            order = np.argsort(-values, kind="stable")
            kept[channels[order[count:]]] = False
        return kept

    thresholds = np.unique(np.concatenate([*(scores[channels] for channels in makers), [-1.0]]))
    least = graph.macs(kept_above(thresholds[-1]))
    if least > target:
        fraction = least / graph.macs(everything)
        raise DeepLabError(
            f"macs={macs:g} cannot be reached; the minimum for this network is {fraction:.2f}, "
            "because pruning keeps all channels of residual connections, of response "
            "normalizations (ConvNeXt V2), and of the first and last layer, and at least 10 % of "
            "the channels of every other layer"
        )
    # The multiply-adds decrease as the threshold increases.
    first = bisect.bisect_left(thresholds, -target, key=lambda each: -graph.macs(kept_above(each)))
    return kept_above(thresholds[first])
