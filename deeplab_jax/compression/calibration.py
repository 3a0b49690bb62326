"""Statistics of each convolution's input over calibration images."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.data import Dataset, evaluation_batches
from deeplab_jax.data.datasets import largest_size
from deeplab_jax.data.folds import evenly_spaced
from deeplab_jax.inference.padding import Size, padded_size
from deeplab_jax.layers import is_convolution, record_inputs
from deeplab_jax.models import DeepLab
from deeplab_jax.reporter import Reporter


def calibration_images(
    dataset: Dataset,
    model: DeepLab,
    *,
    limit: int = 32,
    size: Size | None = None,
    reporter: Reporter | None = None,
) -> Iterator[np.ndarray]:
    """Yields calibration images one at a time, padded to one size that suits a network.

    Args:
      dataset: source of the images, which are evenly spaced over it.
      model: network, which determines the legal sizes.
      limit: maximum number of images.
      size: (H, W) to pad to, rounded up to a legal size (default: size of the largest image).
      reporter: receives progress events.

    Yields:
      [1, H, W, C], as the network takes them.
    """
    chosen = evenly_spaced(dataset, limit)
    size = padded_size(model, size or largest_size(dataset), None)
    batches = evaluation_batches(chosen, size, batch_size=1, fill=model.architecture.mean_pixel)
    for batch in (reporter or Reporter()).track(batches, "calibrating, image", len(chosen)):
        yield batch["image"]


Path = tuple[str, ...]


def nested(flat: Mapping[str, np.ndarray], like: Any) -> dict[str, Any]:
    """Returns leaves by path, such as `params/block1/unit_1/kernel`, in the structure of a tree.

    Module names may hold slashes, so a path alone does not determine the structure.
    """
    paths = traverse_util.flatten_dict(like)
    return traverse_util.unflatten_dict({path: flat["/".join(path)] for path in paths})


def input_statistics(
    model: DeepLab, statistic: Callable[[jax.Array], Any]
) -> Callable[[Any, jax.Array], dict[Path, Any]]:
    """Returns a jitted function from (variables, images) to a statistic of every input.

    The result maps the path of a convolution to the statistic of its input. A network at several
    scales calls each convolution once per scale; the statistic is then the mean over the scales.

    Args:
      model: network, applied in evaluation mode to images uint8 [N, H, W, C].
      statistic: function from a convolution's input, float32 [N, h, w, c], to arrays whose shapes
        do not depend on h and w.
    """

    @jax.jit
    def measure(variables: Any, images: jax.Array) -> dict[Path, Any]:
        found: dict[Path, list[Any]] = {}

        def seen(layer: Any, inputs: jax.Array) -> None:
            inputs = ops.as_array(inputs).astype(jnp.float32)
            found.setdefault(layer.path, []).append(statistic(inputs))

        record_inputs(lambda: model.apply(variables, images, train=False), is_convolution, seen)
        return {
            path: jax.tree.map(lambda *scales: jnp.stack(scales).mean(0), *several)
            for path, several in found.items()
        }

    return measure
