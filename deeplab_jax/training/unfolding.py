"""Restores batch normalization that was folded into convolutions (unfolding).

Some networks are published with folded batch normalization. After conversion, each folded batch
normalization is the identity in evaluation. In training, however, it would normalize by the
statistics of the batch, so the network would compute another function.

Unfolding measures, on training images, the mean and variance of the inputs of each folded batch
normalization. It stores these statistics in the layer, and chooses scale and offset such that the
layer remains the identity in evaluation. Training then starts from the function of the published
network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh

from deeplab_jax.layers import record_inputs
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import replicated
from deeplab_jax.training.state import Variables

Path = tuple[str, ...]
# Number of training batches on which the statistics are measured.
BATCHES = 8


def unfold_batch_norm(
    model: DeepLab,
    variables: Variables,
    folded: frozenset[Path],
    batches: Iterable[jax.Array],
    mesh: Mesh,
) -> Variables:
    """Replaces the statistics of folded batch normalizations by statistics measured on images.

    Scales and offsets are adapted, so that the network with the returned variables computes the
    same function in evaluation as with `variables`.

    Args:
      model: network.
      variables: variables of the network.
      folded: paths, without `params`, of the batch normalizations that were folded.
      batches: batches of training images, uint8 [N, H, W, C], of equal size and sharded over all
        devices.
      mesh: device mesh.
    """
    measure = jax.jit(_measurement(model, folded), out_shardings=replicated(mesh))
    measured = [jax.device_get(measure(variables, images)) for images in batches]
    flat = traverse_util.flatten_dict(jax.device_get(variables))
    for path in folded:
        flat |= _restated(flat, path, _merged([batch[path] for batch in measured]))
    return traverse_util.unflatten_dict(flat)


class Statistics(NamedTuple):
    """Mean and variance per channel of the inputs of a batch normalization, and its epsilon."""

    mean: np.ndarray | jax.Array
    variance: np.ndarray | jax.Array
    epsilon: float


def _measurement(
    model: DeepLab, folded: frozenset[Path]
) -> Callable[[Variables, jax.Array], dict[Path, Statistics]]:
    def measure(variables: Variables, images: jax.Array) -> dict[Path, Statistics]:
        found = {}

        def seen(module: nn.BatchNorm, inputs: jax.Array) -> None:
            inputs = inputs.astype(jnp.float32)
            mean, variance = jnp.mean(inputs, (0, 1, 2)), jnp.var(inputs, (0, 1, 2))
            found[module.path] = Statistics(mean, variance, module.epsilon)

        record_inputs(
            lambda: model.apply(variables, images, train=False),
            lambda module: isinstance(module, nn.BatchNorm) and module.path in folded,
            seen,
        )
        return found

    return measure


def _merged(batches: Sequence[Statistics]) -> Statistics:
    """Combines the statistics of equally large batches into the statistics of all batches."""
    means, variances, epsilons = map(np.stack, zip(*batches, strict=True))
    # Total variance: mean of the variances within batches plus variance of the batch means.
    return Statistics(means.mean(0), variances.mean(0) + means.var(0), epsilons[0])


def _restated(
    flat: Mapping[Path, np.ndarray], path: Path, statistics: Statistics
) -> dict[Path, np.ndarray | jax.Array]:
    """Returns {path of a variable: new value} for the batch normalization at `path`.

    Mean and variance become those of `statistics`. Scale and offset are chosen so that the layer
    computes the same function in evaluation as with the values in `flat`.
    """
    mean, variance, epsilon = statistics
    scale, offset = flat["params", *path, "scale"], flat["params", *path, "bias"]
    old_mean, old_variance = (flat["batch_stats", *path, name] for name in ("mean", "var"))
    slope = scale / np.sqrt(old_variance + epsilon)
    return {
        ("params", *path, "scale"): slope * np.sqrt(variance + epsilon),
        ("params", *path, "bias"): offset + slope * (mean - old_mean),
        ("batch_stats", *path, "mean"): mean,
        ("batch_stats", *path, "var"): variance,
    }
