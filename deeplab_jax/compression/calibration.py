"""Yields calibration images, and computes statistics of the inputs of convolutions."""

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
    """Yields evenly spaced images of a dataset, all padded to the same size.

    Args:
      dataset: dataset to read.
      model: network, which determines the legal image sizes and the padding value.
      limit: maximum number of images.
      size: (H, W) in pixels to pad to, rounded up to a legal size (default: size of the largest
        image).
      reporter: receives progress events.

    Yields:
      Batches of one image [1, H, W, C], in the dtype of the images of the dataset.
    """
    chosen = evenly_spaced(dataset, limit)
    size = padded_size(model, size or largest_size(dataset), None)
    batches = evaluation_batches(chosen, size, batch_size=1, fill=model.architecture.mean_pixel)
    for batch in (reporter or Reporter()).track(batches, "calibrating, image", len(chosen)):
        yield batch["image"]


Path = tuple[str, ...]


def nested(flat: Mapping[str, np.ndarray], like: Any) -> dict[str, Any]:
    """Converts a flat dictionary of variables to a nested one with the structure of `like`.

    The paths alone do not determine the structure, because module names may contain slashes.

    Args:
      flat: arrays by path, such as `params/block1/unit_1/kernel`.
      like: nested dictionary whose leaves have the paths of `flat`.
    """
    paths = traverse_util.flatten_dict(like)
    return traverse_util.unflatten_dict({path: flat["/".join(path)] for path in paths})


def input_statistics(
    model: DeepLab, statistic: Callable[[jax.Array], Any]
) -> Callable[[Any, jax.Array | np.ndarray], dict[Path, Any]]:
    """Returns a jitted function that computes a statistic of the input of every convolution.

    The function takes (variables, images) and returns the statistic by path of the convolution. A
    multi-scale network calls each convolution once per scale; the statistic is then averaged over
    the scales.

    Args:
      model: network; it is applied in evaluation mode to images uint8 [N, H, W, C].
      statistic: function that takes the input of a convolution, float32 [N, h, w, c], and returns
        arrays whose shapes do not depend on h and w.
    """

    @jax.jit
    def measure(variables: Any, images: jax.Array | np.ndarray) -> dict[Path, Any]:
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
