"""Channel graph of a network: which convolutions produce and consume each channel.

Every output channel of a convolution gets a number; depthwise convolutions keep the numbers of
their input. The channels are followed through the traced program to the convolutions that take them
as input. Channels that are multiplied by each other get the same number, because they must be
removed together.

Some channels are fixed, which means that they must not be removed: the output channels of the first
convolution, channels that are added to other channels, channels that the network returns, and
input channels of an operation through which channels cannot be followed.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import DeepLab
from deeplab_jax.models.receptive_field import Operation, Program, flatten

# Number of all channels that no convolution produces: the channels of the image.
NO_CHANNEL = -1
# fmt: off
ELEMENTWISE = frozenset({
    "abs", "add", "and", "clamp", "convert_element_type", "copy", "div", "eq", "erf", "erfc",
    "exp", "floor", "ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "max", "min", "mul",
    "ne", "neg", "not", "or", "pow", "round", "rsqrt", "select_n", "sign", "sqrt", "square",
    "stop_gradient", "sub", "tanh",
})
# fmt: on


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of the channel graph.

    Attributes:
      inputs, outputs: int [C], the number of each input or output channel in the graph; −1 for
        channels without a number, such as those of the image. The two arrays of a depthwise
        convolution are equal.
      depthwise: whether the convolution is depthwise.
      cost: multiply-adds for each pair of an input and an output channel; for a depthwise
        convolution, multiply-adds for each channel.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    depthwise: bool
    cost: int


@dataclasses.dataclass(frozen=True)
class ChannelGraph:
    """Convolutions of a network, and the channels that must not be removed.

    Attributes:
      layers: convolutions by path.
      fixed: the channels that must not be removed, as their numbers in the graph.
      num_channels: total number of output channels of all convolutions that are not depthwise.
    """

    layers: Mapping[str, Layer]
    fixed: frozenset[int]
    num_channels: int

    def macs(self, kept: np.ndarray) -> int:
        """Returns the multiply-adds of the network that contains only the kept channels.

        Args:
          kept: bool [num_channels], whether each channel is kept.
        """
        # The channels of the image have the number -1, which indexes the last entry.
        kept = np.append(kept, True)
        total = 0
        for layer in self.layers.values():
            readers = 1 if layer.depthwise else int(kept[layer.inputs].sum())
            total += layer.cost * readers * int(kept[layer.outputs].sum())
        return total

    def macs_of_channels(self) -> np.ndarray:
        """Returns how many multiply-adds produce or consume each channel, int64 [num_channels]."""
        total = np.zeros(self.num_channels, np.int64)
        for layer in self.layers.values():
            readers = 1 if layer.depthwise else len(layer.inputs)
            np.add.at(total, layer.outputs, layer.cost * readers)
            read = layer.inputs[layer.inputs != NO_CHANNEL]
            if not layer.depthwise:
                np.add.at(total, read, layer.cost * len(layer.outputs))
        return total


class _Channels(NamedTuple):
    """Channels of an array in the traced program.

    Attributes:
      axis: channel axis of the array.
      numbers: for each position of this axis, the number of its channel in the channel graph; −1
        for positions that belong to no channel.
    """

    axis: int
    numbers: np.ndarray


# Channels of each operand of an operation; None: the operand has no numbered channels.
Given = Sequence[_Channels | None]


def channel_graph(model: DeepLab, size: tuple[int, int]) -> ChannelGraph:
    """Returns the channel graph of a network.

    Args:
      model: network in floating point.
      size: (H, W) of the image for which multiply-adds are counted.

    Raises:
      DeepLabError: the network has grouped convolutions with several channels per group.
    """
    image = jax.ShapeDtypeStruct((1, *size, model.architecture.in_channels), jnp.uint8)

    def outputs(variables: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, maps = model.apply(variables, image, endpoints=True)
        return logits, maps.get("auxiliary", logits)

    with ops.dispatching(export=True):
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
        return _Tracing().graph(flatten(jax.make_jaxpr(outputs)(variables, image)))


class _Tracing:
    """State of `channel_graph` while it follows channels through the operations of a program."""

    def __init__(self) -> None:
        self._channels: dict[int, _Channels] = {}
        self._layers: dict[str, Layer] = {}
        self._fixed: set[int] = set()
        self._same: dict[int, int] = {}
        self._count = 0

    def graph(self, program: Program) -> ChannelGraph:
        for operation in program.operations:
            given = [self._channels.get(value.number) for value in operation.inputs]
            if operation.name == "conv_general_dilated":
                self._convolve(operation, given[0])
            elif any(given):
                self._follow(operation, given)
        for value in program.outputs:
            self._fix(self._channels.get(value.number))
        # NO_CHANNEL, -1, indexes the last entry.
        final = np.array([*map(self._resolve, range(self._count)), NO_CHANNEL])
        layers = {
            path: Layer(final[layer.inputs], final[layer.outputs], layer.depthwise, layer.cost)
            for path, layer in self._layers.items()
        }
        fixed = frozenset(final[list(self._fixed)].tolist()) - {NO_CHANNEL}
        return ChannelGraph(layers, fixed, self._count)

    def _resolve(self, number: int) -> int:
        while number in self._same:
            number = self._same[number]
        return number

    def _fix(self, *several: _Channels | None) -> None:
        for channels in several:
            if channels is not None:
                self._fixed.update(channels.numbers.tolist())

    def _convolve(self, operation: Operation, given: _Channels | None) -> None:
        (image, kernel), (output,) = operation.inputs[:2], operation.outputs
        inputs = np.full(image.shape[-1], NO_CHANNEL) if given is None else given.numbers
        depthwise = operation.params["feature_group_count"] > 1
        if depthwise and kernel.shape[2] > 1:
            raise DeepLabError(
                f"{operation.path} is a grouped convolution with {kernel.shape[2]} channels per "
                "group, and single channels of a group cannot be removed; prune a network without "
                "grouped convolutions, or use deeplab-jax quantize or distill"
            )
        cost = math.prod(output.shape[1:3]) * math.prod(kernel.shape[:2])
        if before := self._layers.get(operation.path):
            # This is another call of a convolution, at another scale of the image.
            outputs, cost = before.outputs, cost + before.cost
        elif depthwise:
            outputs = inputs
        else:
            outputs = np.arange(self._count, self._count + output.shape[-1])
            self._count += output.shape[-1]
        self._layers[operation.path] = Layer(inputs, outputs, depthwise, cost)
        self._channels[output.number] = _Channels(len(output.shape) - 1, outputs)
        if given is None:
            # The first convolution is not pruned: it is narrow, and all other layers depend on it.
            self._fix(self._channels[output.number])

    def _follow(self, operation: Operation, given: Given) -> None:
        found = None
        if operation.name in ELEMENTWISE:
            found = self._elementwise(operation, given)
        elif operation.name in JOINS:
            found = JOINS[operation.name](operation, given)
        elif operation.name in MOVES and given[0]:
            found = MOVES[operation.name](operation, given[0])
        if found:
            self._channels[operation.outputs[0].number] = found
        else:
            self._fix(*given)

    def _elementwise(self, operation: Operation, given: Given) -> _Channels | None:
        first, *others = [channels for channels in given if channels is not None]
        for other in others:
            if np.array_equal(first.numbers, other.numbers):
                continue
            if operation.name != "mul" or first.axis != other.axis:
                self._fix(first, other)
                continue
            # A product of two maps (a gate): channels that are multiplied must be removed together,
            # so they get the same number.
            for pair in zip(first.numbers.tolist(), other.numbers.tolist(), strict=True):
                low, high = sorted(map(self._resolve, pair))
                if low != high:
                    self._same[high] = low
        return first


def _concatenated(operation: Operation, given: Given) -> _Channels | None:
    axis = operation.params["dimension"]
    if any(channels is not None and channels.axis != axis for channels in given):
        alike = {None if c is None else (c.axis, tuple(c.numbers)) for c in given}
        return given[0] if len(alike) == 1 else None
    parts = [
        np.full(value.shape[axis], NO_CHANNEL) if channels is None else channels.numbers
        for value, channels in zip(operation.inputs, given, strict=True)
    ]
    return _Channels(axis, np.concatenate(parts))


def _through_product(operation: Operation, given: Given) -> _Channels | None:
    """Returns the channels of the result of a matrix product (`dot_general`), or None.

    Channels can be followed if only one factor has numbered channels, and their axis is an axis of
    the result. For example, resizing multiplies the rows or columns of a feature map by a constant
    matrix. The result is None if both factors have numbered channels, or if the channel axis is a
    contracting or batch dimension.
    """
    (contracted, batched) = operation.params["dimension_numbers"]
    side = 0 if given[0] is not None else 1
    channels = given[side]
    if None not in given or channels is None:
        return None
    if channels.axis in (*contracted[side], *batched[side]):
        return None
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*contracted[n], *batched[n])]
        for n, value in enumerate(operation.inputs)
    ]
    before = len(batched[0]) + (len(free[0]) if side == 1 else 0)
    return channels._replace(axis=before + free[side].index(channels.axis))


def _same_place(operation: Operation, channels: _Channels) -> _Channels | None:
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    same_rank = len(before) == len(after)
    return channels if same_rank and before[channels.axis] == after[channels.axis] else None


def _broadcast(operation: Operation, channels: _Channels) -> _Channels | None:
    axis = operation.params["broadcast_dimensions"][channels.axis]
    same = operation.outputs[0].shape[axis] == len(channels.numbers)
    return channels._replace(axis=axis) if same else None


def _transposed(operation: Operation, channels: _Channels) -> _Channels:
    return channels._replace(axis=operation.params["permutation"].index(channels.axis))


def _reshaped(operation: Operation, channels: _Channels) -> _Channels | None:
    """Returns the channels after a reshape that keeps them on the last axis; otherwise None."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    last = channels.axis == len(before) - 1 and after[-1:] == before[-1:]
    return channels._replace(axis=len(after) - 1) if last else None


def _without_axes(operation: Operation, channels: _Channels) -> _Channels | None:
    axes = operation.params["dimensions" if operation.name == "squeeze" else "axes"]
    if channels.axis in axes:
        return None
    return channels._replace(axis=channels.axis - sum(axis < channels.axis for axis in axes))


# Operations on several arrays, each with a function as in MOVES that takes the channels of all
# operands.
JOINS = {"concatenate": _concatenated, "dot_general": _through_product}
# Operations on one array, each with a function that returns the channels of the result. None: the
# channels cannot be followed further, and become fixed.
MOVES: Mapping[str, Callable[[Operation, _Channels], _Channels | None]] = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transposed,
    "reshape": _reshaped,
    **dict.fromkeys(("squeeze", "reduce_sum", "reduce_max", "reduce_min"), _without_axes),
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_sum", "reduce_window", "pad", "slice"), _same_place
    ),
}
