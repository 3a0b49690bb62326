"""Statistics of each convolution's input over calibration images."""

from collections.abc import Callable, Iterator
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
    """Yields images of one size that suits a network, one at a time.

    Args:
      dataset: whose images are taken, evenly spread.
      model: decides the legal sizes.
      limit: maximum number of images.
      size: (H, W) to pad to, rounded up to what suits the network; default: of the largest image.
      reporter: receives progress events.

    Yields:
      uint8 [1, H, W, 3].
    """
    chosen = evenly_spaced(dataset, limit)
    size = padded_size(model, size or largest_size(dataset), None)
    batches = evaluation_batches(chosen, size, batch_size=1, fill=model.architecture.mean_pixel)
    for batch in (reporter or Reporter()).track(batches, "calibrating, image", len(chosen)):
        yield batch["image"]


Path = tuple[str, ...]
Flat = dict[Path, np.ndarray]


def by_path(tree: Any) -> Flat:
    """Returns the leaves by path; a module's name such as `block1/unit_1` is two steps of it."""
    flat = traverse_util.flatten_dict(tree)
    return {tuple("/".join(path).split("/")): leaf for path, leaf in flat.items()}


def nested(flat: Flat, like: Any) -> dict[str, Any]:
    """Returns leaves by path as a tree of the same structure as another."""
    paths = traverse_util.flatten_dict(like)
    return traverse_util.unflatten_dict(
        {path: flat[tuple("/".join(path).split("/"))] for path in paths}
    )


def input_statistics(
    model: DeepLab, statistic: Callable[[jax.Array], Any]
) -> Callable[[Any, jax.Array], dict[Path, Any]]:
    """Returns the jitted function (variables, images) → statistic by the path of the convolution.

    A network at several scales calls each convolution once a scale; then it is the mean over them.

    Args:
      model: in evaluation; images are uint8 [N, H, W, C].
      statistic: of a convolution's inputs, float32 [N, h, w, c], to arrays whose shapes do not
        depend on h and w.
    """

    @jax.jit
    def measure(variables: Any, images: jax.Array) -> dict[Path, Any]:
        found: dict[Path, list[Any]] = {}

        def seen(layer: Any, inputs: jax.Array) -> None:
            inputs = ops.as_array(inputs).astype(jnp.float32)
            found.setdefault(layer.path, []).append(statistic(inputs))

        record_inputs(lambda: model.apply(variables, images, train=False), is_convolution, seen)
        return {path: jax.tree.map(_mean, *several) for path, several in found.items()}

    return measure


def _mean(*several: jax.Array) -> jax.Array:
    return jnp.stack(several).mean(0)
