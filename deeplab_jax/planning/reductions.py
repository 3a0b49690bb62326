"""Sums over chips that a data-parallel step needs, and those of a compiled step."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.models import Architecture
from deeplab_jax.planning.collectives import Collective

# Sums over the batch that batch normalisation needs, a channel each: of values and of squares, and
# in the backward pass what the mean receives. Those of offset and scale are gradients.
SUMS_PER_CHANNEL = 3
SUM_BYTES = 4
# The convolution in the way past a residual unit, in all backbones that have one.
SHORTCUT = "shortcut"
GATHERING = ("all-gather", "all-to-all", "ragged-all-to-all")


class Reductions(NamedTuple):
    """Bytes a chip, in a step.

    Attributes:
      gradients: of the parameters.
      batch_norm_sums: of batch normalisation's statistics.
      others: loss, metrics; and of maps that are split by rows, what pools or resizes them.
    """

    gradients: int
    batch_norm_sums: int
    others: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def expected_reductions(
    architecture: Architecture, variables: Any, accumulation_steps: int = 1
) -> Reductions:
    """Returns what the network's shapes say must be summed, with whole parameters on every chip.

    Args:
      architecture: of the network.
      variables: {"params", "batch_stats"}, arrays or their shapes.
      accumulation_steps: parts of a batch, each of which is summed by itself.
    """
    computed = jnp.dtype(architecture.dtype).itemsize
    gradients = sum(
        math.prod(leaf.shape) * (computed if leaf.ndim > 1 else leaf.dtype.itemsize)
        for leaf in jax.tree.leaves(variables["params"])
    )
    flat = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    channels = {path: math.prod(leaf.shape) for path, leaf in flat.items() if path[-1] == "mean"}
    # A shortcut and what is added to it have one gradient: one sum does for both offsets.
    shared = sum(count for path, count in channels.items() if SHORTCUT in path)
    alone = architecture.frozen_batch_norm or architecture.ghost_batch_size > 0
    passes = max(1, len(architecture.multi_scale))
    numbers = 0 if alone else SUMS_PER_CHANNEL * sum(channels.values()) - shared
    sums = SUM_BYTES * numbers * passes
    return Reductions(gradients * accumulation_steps, sums * accumulation_steps)


def found_reductions(
    collectives: Iterable[Collective], variables: Any, accumulation_steps: int = 1
) -> Reductions:
    """Returns what the compiled step sums over the batch's chips.

    Sums of vectors are gradients as far as parameters are vectors; the rest is batch
    normalisation's. What is summed over `space` alone is of maps, not of the batch.
    """
    kernels = vectors = others = 0
    for collective in collectives:
        if collective.kind not in ("all-reduce", "reduce-scatter"):
            continue
        for array in collective.arrays:
            size = collective.times * array.bytes
            lengths = [length for length in array.shape if length > 1]
            if not lengths or collective.axes == ("space",):
                others += size
            elif len(lengths) == 1:
                # In a loop over stacked parameters it is one of them, [1, C].
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
    """Returns count and bytes of what is gathered along `data` and is no parameter."""
    return _count(each for each in _gathers(collectives) if not _is_variable(each, variables))


def gathered_parameters(collectives: Iterable[Collective], variables: Any) -> dict[str, int]:
    """Returns count and bytes of parameters that chips keep in parts (fsdp) and gather to use."""
    return _count(each for each in _gathers(collectives) if _is_variable(each, variables))


def expected_gathers(architecture: Architecture, params: Any) -> int:
    """Returns the bytes of the parameters that lie in parts on the chips, each gathered once.

    Args:
      architecture: of the network.
      params: shapes with shardings.
    """
    computed = jnp.dtype(architecture.dtype).itemsize
    return sum(
        computed * math.prod(leaf.shape)
        for leaf in jax.tree.leaves(params)
        if not leaf.sharding.is_fully_replicated
    )


def _gathers(collectives: Iterable[Collective]) -> Iterator[Collective]:
    for each in collectives:
        if each.kind in GATHERING and "data" in each.axes:
            yield each


def _is_variable(collective: Collective, variables: Any) -> bool:
    sizes = {math.prod(leaf.shape) for leaf in jax.tree.leaves(variables)} | {1}
    return all(array.size in sizes for array in collective.arrays)


def _count(collectives: Iterable[Collective]) -> dict[str, int]:
    found = list(collectives)
    return {
        "count": sum(each.times for each in found),
        "bytes": sum(each.bytes for each in found),
    }


def halo_traffic(collectives: Iterable[Collective]) -> dict[str, int]:
    """Returns count and bytes of what neighbours along `space` send each other."""
    return _count(
        each
        for each in collectives
        if each.kind == "collective-permute" and each.axes == ("space",)
    )
