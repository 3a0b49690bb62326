"""Bytes in the collectives that training requires, and in those of a compiled training step."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.models import Architecture
from deeplab_jax.planning.collectives import Collective, count

# Number of sums over the batch per channel of batch normalization: of values and squares in the
# forward pass. The sums of the backward pass are the gradients of offset and scale, which are
# counted as gradients of parameters.
SUMS_PER_CHANNEL = 2
SUM_BYTES = 4
# Name of the convolution on the shortcut of a residual unit, in all backbones that have one.
SHORTCUT = "shortcut"
GATHERING = ("all-gather", "all-to-all", "ragged-all-to-all")


class Reductions(NamedTuple):
    """Bytes in all-reduces, per chip and step.

    Attributes:
      gradients: gradients of the parameters.
      batch_norm_sums: statistics of batch normalization.
      others: loss and metrics, and pooling and resizing of feature maps whose rows are sharded.
    """

    gradients: int
    batch_norm_sums: int
    others: int = 0

    @property
    def total(self) -> int:
        """Sum of all fields."""
        return sum(self)


def expected_reductions(
    architecture: Architecture, variables: Any, accumulation_steps: int = 1
) -> Reductions:
    """Returns the bytes in the all-reduces that training with replicated parameters requires.

    The bytes are computed from the shapes of the variables.

    Args:
      architecture: architecture of the network.
      variables: {"params", "batch_stats"}, arrays or their shapes.
      accumulation_steps: number of microbatches, each of which is reduced separately.
    """
    computed = jnp.dtype(architecture.dtype).itemsize
    gradients = sum(
        math.prod(leaf.shape) * (computed if leaf.ndim > 1 else leaf.dtype.itemsize)
        for leaf in jax.tree.leaves(variables["params"])
    )
    flat = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    channels = {path: math.prod(leaf.shape) for path, leaf in flat.items() if path[-1] == "mean"}
    # The shortcut and the branch of a residual unit are added, so their offsets have the same
    # gradient, and one sum is sufficient for both.
    shared = sum(width for path, width in channels.items() if SHORTCUT in path)
    local = architecture.frozen_batch_norm or architecture.ghost_batch_size > 0
    numbers = 0 if local else SUMS_PER_CHANNEL * sum(channels.values()) - shared
    sums = SUM_BYTES * numbers * max(1, len(architecture.multi_scale))
    return Reductions(gradients * accumulation_steps, sums * accumulation_steps)


def found_reductions(
    collectives: Iterable[Collective], variables: Any, accumulation_steps: int = 1
) -> Reductions:
    """Returns the bytes in the all-reduces and reduce-scatters of a compiled step.

    The purpose of an all-reduce follows from the shapes of its arrays. Arrays with several axes are
    gradients of kernels. The bytes of vectors are counted as gradients, up to the total size of all
    vector parameters. The remaining bytes of vectors are counted as statistics of batch
    normalization. Scalars are counted as `others`. Arrays that are reduced only along the mesh axis
    `spatial` are also counted as `others`, because devices along this axis hold parts of the same
    images.

    Args:
      collectives: collectives of the compiled step.
      variables: {"params", "batch_stats"}, arrays or their shapes.
      accumulation_steps: number of microbatches, each of which is reduced separately.
    """
    kernels = vectors = others = 0
    summing = (each for each in collectives if each.kind in ("all-reduce", "reduce-scatter"))
    for collective, array in ((each, array) for each in summing for array in each.arrays):
        size = collective.times * array.bytes
        # In a loop over stacked vectors, each vector has the shape [1, C].
        lengths = [length for length in array.shape if length > 1]
        if not lengths or collective.axes == ("spatial",):
            others += size
        elif len(lengths) == 1:
            vectors += size
        else:
            kernels += size
    leaves = jax.tree.leaves(variables["params"])
    of_parameters = accumulation_steps * sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves if leaf.ndim == 1
    )
    gradients = min(vectors, of_parameters)
    return Reductions(kernels + gradients, vectors - gradients, others)


def gathered_activations(collectives: Iterable[Collective], variables: Any) -> dict[str, int]:
    """Returns count and bytes of the all-gathers of activations along the mesh axis `data`.

    All-to-alls are also counted. A collective is assigned to activations if the size of one of its
    arrays is neither 1 nor the size of a variable.
    """
    return count(_gathers(collectives, variables, parameters=False))


def gathered_parameters(collectives: Iterable[Collective], variables: Any) -> dict[str, int]:
    """Returns count and bytes of the all-gathers of sharded parameters along the mesh axis `data`.

    All-to-alls are also counted. A collective is assigned to parameters if each of its arrays has
    the size of a variable or the size 1.
    """
    return count(_gathers(collectives, variables, parameters=True))


def _gathers(
    collectives: Iterable[Collective], variables: Any, *, parameters: bool
) -> Iterator[Collective]:
    sizes = {math.prod(leaf.shape) for leaf in jax.tree.leaves(variables)} | {1}
    for each in collectives:
        gathers = each.kind in GATHERING and "data" in each.axes
        if gathers and parameters == all(array.size in sizes for array in each.arrays):
            yield each


def expected_gathers(architecture: Architecture, params: Any) -> int:
    """Returns the bytes in all-gathers if each sharded parameter is gathered once.

    Args:
      architecture: architecture of the network. Parameters are gathered in its dtype.
      params: shapes of the parameters, with shardings.
    """
    sharded = [leaf for leaf in jax.tree.leaves(params) if not leaf.sharding.is_fully_replicated]
    return jnp.dtype(architecture.dtype).itemsize * sum(math.prod(leaf.shape) for leaf in sharded)


def halo_traffic(collectives: Iterable[Collective]) -> dict[str, int]:
    """Returns count and bytes of the halo exchanges between neighbors on the axis `spatial`."""
    permutes = (each for each in collectives if each.kind == "collective-permute")
    return count(each for each in permutes if each.axes == ("spatial",))
