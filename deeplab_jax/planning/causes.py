"""Communication of a training step by cause, compared with the minimum that training requires.

The bytes of a collective are the bytes of its arrays. A reduce-scatter, an all-gather or an
all-to-all counts only half of them, because an all-reduce of the same arrays sends twice as many.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.models import DeepLab
from deeplab_jax.models.receptive_field import Operation, Program
from deeplab_jax.models.summary import trace
from deeplab_jax.ops.resize import source_rows
from deeplab_jax.ops.row_blocks import RowBlocks, input_blocks, output_blocks, resized_blocks
from deeplab_jax.ops.xla_convolution import Window
from deeplab_jax.planning.collectives import Collective

GRADIENTS, STATISTICS, PARAMETERS = "gradients", "statistics", "gathered parameters"
HALO, ROWS, MAPS, OTHERS = "halo", "gathered rows", "gathered maps", "others"
CAUSES = (GRADIENTS, STATISTICS, PARAMETERS, HALO, ROWS, MAPS, OTHERS)
# Kinds of collectives that count half of their bytes.
HALVES = ("all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all")
# Minimum number of bytes of a sum.
SUM_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Cause:
    """Communication of one chip per step for one cause.

    Attributes:
      count: number of collectives.
      bytes: bytes of the collectives, counted as in the module docstring.
      least: minimum of `bytes` that training requires; None if unknown.
    """

    count: int
    bytes: int
    least: int | None


def communication(
    collectives: Iterable[Collective],
    model: DeepLab,
    variables: Any,
    size: tuple[int, int],
    *,
    images: int,
    parts: int,
    accumulation_steps: int = 1,
) -> dict[str, Cause]:
    """Returns the actual and the minimum communication of a training step, by cause.

    Args:
      collectives: collectives of the compiled step.
      model: network.
      variables: `params` and `batch_stats`, or their shapes with shardings.
      size: height and width of the images.
      images: number of images per shard of the batch.
      parts: number of chips over which the rows of an image are sharded.
      accumulation_steps: number of microbatches, each of which is reduced separately.
    """
    least = least_communication(model, variables, size, images, parts, accumulation_steps)
    found = find_causes(collectives, variables["params"], accumulation_steps)
    return {cause: Cause(*found[cause], least[cause]) for cause in CAUSES}


def find_causes(
    collectives: Iterable[Collective], params: Any, accumulation_steps: int = 1
) -> dict[str, tuple[int, int]]:
    """Returns a pair (number of collectives, bytes) for each cause of `CAUSES`.

    All-reduces of vectors over the batch sum either gradients or statistics of batch
    normalization. The compiled program does not show which, so they are counted as follows:

    * number: All these all-reduces are counted under statistics.
    * bytes: They are counted under gradients, up to the total size of all vector parameters, once
      per microbatch. Any further bytes are counted under statistics.

    Args:
      collectives: collectives of a compiled training step.
      params: parameters of the network, or their shapes.
      accumulation_steps: number of microbatches, each of which is reduced separately.
    """
    leaves = jax.tree.leaves(params)
    kernels = {
        size for leaf in leaves if leaf.ndim > 1 for size in (leaf_size(leaf), shard_size(leaf))
    }
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for each in collectives:
        found: dict[str, int] = {}
        for cause, size in _causes(each, kernels):
            found[cause] = found.get(cause, 0) + size
        for cause, size in found.items():
            counts[cause] += each.times
            sizes[cause] += each.times * size // (2 if each.kind in HALVES else 1)
    vectors = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves if leaf.ndim == 1)
    moved = min(accumulation_steps * vectors, sizes[STATISTICS])
    sizes[GRADIENTS] += moved
    sizes[STATISTICS] -= moved
    return {cause: (counts[cause], sizes[cause]) for cause in CAUSES}


def leaf_size(leaf: Any) -> int:
    """Returns the number of values in an array or a `jax.ShapeDtypeStruct`."""
    return math.prod(leaf.shape)


def shard_size(leaf: Any) -> int:
    """Returns how many values of an array each device stores.

    Args:
      leaf: array or `jax.ShapeDtypeStruct`; without a sharding, each device stores all values.
    """
    sharding = getattr(leaf, "sharding", None)
    return math.prod(leaf.shape if sharding is None else sharding.shard_shape(leaf.shape))


def _causes(collective: Collective, kernels: set[int]) -> Iterator[tuple[str, int]]:
    """Yields the cause and the bytes of each array of a collective.

    Args:
      collective: collective of a compiled training step.
      kernels: number of values of each kernel of the network, and of a shard of each kernel. An
        array with such a number of values is counted as a kernel or its gradient.
    """
    kind, axes = collective.kind, collective.axes
    for array in collective.arrays:
        lengths = [length for length in array.shape if length > 1]
        if kind == "collective-permute":
            cause = HALO if axes == ("spatial",) else OTHERS
        elif kind in ("all-reduce", "reduce-scatter"):
            cause = GRADIENTS if array.size in kernels and len(lengths) > 1 else OTHERS
            if len(lengths) == 1 and "data" in axes:
                cause = STATISTICS
        elif array.size in kernels:
            cause = PARAMETERS
        else:
            cause = MAPS if "data" in axes else ROWS
        yield cause, array.bytes


def least_communication(
    model: DeepLab,
    variables: Any,
    size: tuple[int, int],
    images: int,
    parts: int,
    accumulation_steps: int = 1,
) -> dict[str, int | None]:
    """Returns the minimum number of bytes that a chip communicates in a training step, by cause.

    This minimum assumes that each gradient is summed once, and that rows of each feature map are
    exchanged once per pass, even if several layers read the map. The sums of values and of squares
    that batch normalization computes in the forward pass count as statistics. Its sums in the
    backward pass count as gradients, because they are the gradients of scale and offset.

    Args:
      model: network.
      variables: `params` and `batch_stats`, or their shapes with shardings.
      size: height and width of the images.
      images: number of images per shard of the batch.
      parts: number of chips over which the rows of an image are sharded.
      accumulation_steps: number of microbatches, each of which has statistics of its own.
    """
    architecture = model.architecture
    computed = jnp.dtype(architecture.dtype).itemsize
    sums = gathers = 0
    for leaf in jax.tree.leaves(variables["params"]):
        itemsize = computed if leaf.ndim > 1 else leaf.dtype.itemsize
        whole, shard = itemsize * leaf_size(leaf), itemsize * shard_size(leaf)
        if whole == shard:
            sums += whole
            continue
        # A reduce-scatter, then a sum of the shards over the chips that share an image.
        sums += whole // 2 + (shard if parts > 1 else 0)
        gathers += whole // 2
    flat = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    channels = sum(math.prod(leaf.shape) for path, leaf in flat.items() if path[-1] == "mean")
    local = architecture.frozen_batch_norm or architecture.ghost_batch_size > 0
    numbers = 0 if local else 2 * channels * max(1, len(architecture.multi_scale))
    halo = least_halo(model, size, images, parts) if parts > 1 else 0
    return dict.fromkeys(CAUSES, 0) | {
        GRADIENTS: sums,
        STATISTICS: accumulation_steps * numbers * max(SUM_BYTES, computed),
        PARAMETERS: gathers,
        HALO: halo,
    }


def least_halo(model: DeepLab, size: tuple[int, int], images: int, parts: int) -> int | None:
    """Returns the minimum number of bytes that a chip exchanges with neighbors in a training step.

    In the forward pass, neighbors exchange rows of each feature map. In the backward pass, there
    are two ways to compute the gradient of a feature map: neighbors exchange rows of this gradient,
    or rows of the gradients of all maps that are computed from the feature map. The way with fewer
    bytes is counted. The gradient of the image is not computed.

    Args:
      model: network.
      size: height and width of the images.
      images: number of images per shard of the batch.
      parts: number of chips over which the rows of an image are sharded.

    Returns:
      Bytes; None for networks with loops, which cannot be traced.
    """
    try:
        program = trace(model, size)
    except NotImplementedError:
        return None
    itemsize = jnp.dtype(model.architecture.dtype).itemsize
    inputs: dict[int, list[int]] = {}
    outputs: dict[int, list[int]] = {}
    trained = _from_parameters(program)
    for operation in program.operations:
        needed = _needed(operation, parts, model.architecture.align_corners)
        if needed is None:
            continue
        source, forward, backward = needed
        _, _, width, channels = operation.inputs[source].shape
        *_, wide, deep = operation.outputs[0].shape
        number = operation.inputs[source].number
        inputs.setdefault(number, []).append(sum(forward.halo) * width * channels)
        outputs.setdefault(number, []).append(sum(backward.halo) * wide * deep)
    values = sum(
        max(forward) + (min(max(forward), sum(outputs[number])) if number in trained else 0)
        for number, forward in inputs.items()
    )
    return values * images * itemsize


def _from_parameters(program: Program) -> set[int]:
    """Returns the numbers (`Value.number`) of the arrays that depend on the network's parameters.

    The gradients of all other arrays, such as the image at several scales, are not computed. The
    program, which `trace` returns, computes the parameters from the random key, its first input.
    """
    numbers = {program.inputs[0].number}
    for operation in program.operations:
        if not numbers.isdisjoint(value.number for value in operation.inputs):
            numbers |= {value.number for value in operation.outputs}
    return numbers


def _needed(
    operation: Operation, parts: int, align_corners: bool
) -> tuple[int, RowBlocks, RowBlocks] | None:
    """Returns the rows that each chip needs for an operation on a feature map.

    Returns:
      None if the operation needs no rows of other chips, or if the rows of the feature map are not
      sharded. Otherwise, three results:

      * index of the feature map in the inputs of the operation
      * rows of the feature map that each chip needs in the forward pass
      * rows of the output's gradient that each chip needs in the backward pass; for a resize, the
        same `RowBlocks` as in the forward pass
    """
    index, output = 0, operation.outputs[0].shape
    if operation.name == "conv_general_dilated":
        window = Window(
            operation.inputs[1].shape[0],
            operation.params["rhs_dilation"],
            operation.params["padding"],
            operation.params["window_strides"][0],
        )
    elif operation.name.startswith("reduce_window"):
        params = operation.params
        window = Window(
            params["window_dimensions"][1],
            params["window_dilation"][1:3],
            params["padding"][1:3],
            params["window_strides"][1],
        )
    elif operation.name == "dot_general":
        contracted, _ = operation.params["dimension_numbers"]
        ranks = [len(value.shape) for value in operation.inputs]
        index = ranks.index(4) if 4 in ranks else -1
        if sorted(ranks) != [2, 4] or tuple(contracted[index]) != (1,):
            return None
        height, matrix = operation.inputs[index].shape[1], operation.inputs[1 - index].shape
        target = matrix[0] if contracted[1 - index] == (1,) else matrix[1]
        if min(height, target) < parts:
            return None
        blocks = resized_blocks("", parts, height, source_rows(height, target, align_corners))
        return index, blocks, blocks
    else:
        return None
    rows, count = operation.inputs[index].shape[1], output[1]
    if len(output) != 4 or min(rows, count) < parts:
        return None
    return (
        index,
        input_blocks("", parts, rows, count, window),
        output_blocks("", parts, rows, count, window),
    )
