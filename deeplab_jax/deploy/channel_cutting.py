"""Variables and widths of a network without the channels that go."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.deploy.pruning_graph import ChannelGraph
from deeplab_jax.deploy.variable_paths import Flat, Path, by_path, nested
from deeplab_jax.errors import DeepLabError
from deeplab_jax.model_store import StoredModel
from deeplab_jax.models import create_model

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
    changes = {"widths": tuple(widths.items()), "scan_units": False}
    overrides = stored.description.overrides | changes
    model = create_model(stored.description.architecture, **overrides)
    image = jnp.zeros((1, *PROBE_SIZE, model.architecture.in_channels), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in by_path(shapes["params"]).items()}
