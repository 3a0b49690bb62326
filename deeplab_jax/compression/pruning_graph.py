"""Groups of channels that must be removed together, from a network's traced program.

Every output channel of a dense convolution gets a number, and the numbers are followed through the
program to the convolutions that take them in. Channels that are added to others, or leave the
network, are fixed: taking one away would change more than its own convolution and its readers.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax import ops
from deeplab_jax.models import DeepLab
from deeplab_jax.models.receptive_field import Operation, Program, Value, flatten

# Of channels that are no convolution's: the image's.
NO_CHANNEL = -1
# fmt: off
ELEMENTWISE = frozenset({
    "abs", "add", "and", "clamp", "convert_element_type", "copy", "div", "eq", "erf", "exp",
    "floor", "ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "max", "min", "mul", "ne",
    "neg", "not", "or", "pow", "round", "rsqrt", "select_n", "sign", "sqrt", "square",
    "stop_gradient", "sub", "tanh",
})
# fmt: on


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution.

    Attributes:
      inputs, outputs: numbers of its channels; a depthwise one gives those that it takes.
      depthwise: one kernel a channel.
      cost: multiply-adds of one input with one output channel; of one channel if depthwise.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    depthwise: bool
    cost: int


@dataclasses.dataclass(frozen=True)
class ChannelGraph:
    """The convolutions of a network by path, and which channels may not be taken away."""

    layers: Mapping[str, Layer]
    fixed: frozenset[int]
    num_channels: int

    def macs(self, kept: np.ndarray) -> int:
        """Returns the multiply-adds with only the channels kept, bool [num_channels]."""
        # The image's channels have number -1, and so the entry at the end.
        kept = np.append(kept, True)
        total = 0
        for layer in self.layers.values():
            readers = 1 if layer.depthwise else int(kept[layer.inputs].sum())
            total += layer.cost * readers * int(kept[layer.outputs].sum())
        return total

    def macs_of_channels(self) -> np.ndarray:
        """Returns the multiply-adds of making, passing on and reading each channel alone."""
        total = np.zeros(self.num_channels, np.int64)
        for layer in self.layers.values():
            readers = 1 if layer.depthwise else len(layer.inputs)
            np.add.at(total, layer.outputs, layer.cost * readers)
            read = layer.inputs[layer.inputs != NO_CHANNEL]
            if not layer.depthwise:
                np.add.at(total, read, layer.cost * len(layer.outputs))
        return total


class _Channels(NamedTuple):
    """Where an array has its channels: an axis, and their numbers along it."""

    axis: int
    numbers: np.ndarray


def channel_graph(model: DeepLab, size: tuple[int, int]) -> ChannelGraph:
    """Returns the graph of a network's channels.

    Args:
      model: in floating-point numbers.
      size: (H, W) of the image whose multiply-adds are counted.
    """
    return _Tracing().graph(_program(model, size))


def _program(model: DeepLab, size: tuple[int, int]) -> Program:
    image = jax.ShapeDtypeStruct((1, *size, model.architecture.in_channels), jnp.uint8)

    def outputs(variables: Any, image: jax.Array) -> list[jax.Array]:
        logits, maps = model.apply(variables, image, endpoints=True)
        return [logits, *(maps[name] for name in ("auxiliary",) if name in maps)]

    with ops.dispatching(export=True):
        key = jax.eval_shape(lambda: jax.random.key(0))
        variables = jax.eval_shape(model.init, key, image)
        return flatten(jax.make_jaxpr(outputs)(variables, image))


class _Tracing:
    """Follows channels through one program."""

    def __init__(self) -> None:
        self._channels: dict[int, _Channels] = {}
        self._layers: dict[str, Layer] = {}
        self._fixed: set[int] = set()
        self._same: dict[int, int] = {}
        self._count = itertools.count()

    def graph(self, program: Program) -> ChannelGraph:
        for operation in program.operations:
            given = [self._channels.get(value.number) for value in operation.inputs]
            if operation.name == "conv_general_dilated":
                self._convolve(operation, given[0])
            elif any(given):
                self._follow(operation, given)
        for value in program.outputs:
            self._fix(self._channels.get(value.number))
        number = next(self._count)
        fixed = {self._resolve(channel) for channel in self._fixed} - {NO_CHANNEL}
        layers = {
            path: dataclasses.replace(
                layer, inputs=self._resolved(layer.inputs), outputs=self._resolved(layer.outputs)
            )
            for path, layer in self._layers.items()
        }
        return ChannelGraph(layers, frozenset(fixed), number)

    def _resolve(self, number: int) -> int:
        while number in self._same:
            number = self._same[number]
        return number

    def _resolved(self, numbers: np.ndarray) -> np.ndarray:
        return np.array([self._resolve(int(number)) for number in numbers])

    def _fix(self, *several: _Channels | None) -> None:
        for channels in several:
            if channels is not None:
                self._fixed.update(map(int, channels.numbers))

    def _convolve(self, operation: Operation, given: _Channels | None) -> None:
        (image, kernel), (output,) = operation.inputs[:2], operation.outputs
        inputs = np.full(image.shape[-1], NO_CHANNEL) if given is None else given.numbers
        groups, depthwise = operation.params["feature_group_count"], False
        if operation.path in self._layers:
            # Again, at another scale of the image.
            outputs = self._layers[operation.path].outputs
        elif groups == 1:
            outputs = np.array(list(itertools.islice(self._count, output.shape[-1])))
        else:
            outputs, depthwise = inputs, True
        taps = math.prod(output.shape[1:3]) * math.prod(kernel.shape[:2])
        before = self._layers.get(operation.path)
        if before is not None:
            depthwise, taps = before.depthwise, taps + before.cost
        self._layers[operation.path] = Layer(inputs, outputs, depthwise, taps)
        self._channels[output.number] = _Channels(len(output.shape) - 1, outputs)
        if given is None:
            # What sees the image itself is narrow, and what every other layer draws on.
            self._fixed.update(map(int, outputs))

    def _follow(self, operation: Operation, given: Sequence[_Channels | None]) -> None:
        if operation.name in ELEMENTWISE:
            found = self._elementwise(operation, given)
        elif operation.name == "concatenate":
            found = self._concatenated(operation, given)
        elif operation.name == "dot_general":
            found = _through_product(operation, given)
        else:
            known = MOVES.get(operation.name)
            found = known(operation, given[0]) if known and given[0] else None
        if found is None:
            self._fix(*given)
            return
        self._channels[operation.outputs[0].number] = found

    def _elementwise(
        self, operation: Operation, given: Sequence[_Channels | None]
    ) -> _Channels | None:
        first, *others = [channels for channels in given if channels is not None]
        for other in others:
            if np.array_equal(first.numbers, other.numbers):
                continue
            if operation.name != "mul" or first.axis != other.axis:
                self._fix(first, other)
                continue
            # A gate: channel and factor go together.
            for one, two in zip(first.numbers, other.numbers, strict=True):
                one, two = self._resolve(int(one)), self._resolve(int(two))
                if one != two:
                    self._same[max(one, two)] = min(one, two)
        return first

    def _concatenated(
        self, operation: Operation, given: Sequence[_Channels | None]
    ) -> _Channels | None:
        axis = operation.params["dimension"]
        if any(channels is not None and channels.axis != axis for channels in given):
            alike = {None if c is None else (c.axis, tuple(c.numbers)) for c in given}
            return given[0] if len(alike) == 1 else None
        parts = [
            np.full(value.shape[axis], NO_CHANNEL) if channels is None else channels.numbers
            for value, channels in zip(operation.inputs, given, strict=True)
        ]
        return _Channels(axis, np.concatenate(parts))


def _through_product(operation: Operation, given: Sequence[_Channels | None]) -> _Channels | None:
    """A resize: a product with a matrix along rows or columns."""
    (contracted, batched) = operation.params["dimension_numbers"]
    side = 0 if given[0] is not None else 1
    if None not in given or given[side].axis in (*contracted[side], *batched[side]):
        return None
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*contracted[n], *batched[n])]
        for n, value in enumerate(operation.inputs)
    ]
    before = len(batched[0]) + (len(free[0]) if side == 1 else 0)
    return given[side]._replace(axis=before + free[side].index(given[side].axis))


def _same_place(operation: Operation, channels: _Channels) -> _Channels | None:
    (before, *_), (after,) = operation.inputs, operation.outputs
    untouched = _length(before, channels.axis) == _length(after, channels.axis)
    return channels if untouched and len(before.shape) == len(after.shape) else None


def _length(value: Value, axis: int) -> int:
    return value.shape[axis] if axis < len(value.shape) else -1


def _broadcast(operation: Operation, channels: _Channels) -> _Channels | None:
    axis = operation.params["broadcast_dimensions"][channels.axis]
    same = operation.outputs[0].shape[axis] == len(channels.numbers)
    return channels._replace(axis=axis) if same else None


def _transposed(operation: Operation, channels: _Channels) -> _Channels:
    return channels._replace(axis=operation.params["permutation"].index(channels.axis))


def _reshaped(operation: Operation, channels: _Channels) -> _Channels | None:
    """Only where the channels stay the last axis."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    last = channels.axis == len(before) - 1 and after and after[-1] == before[-1]
    return channels._replace(axis=len(after) - 1) if last else None


def _without_axes(name: str) -> Callable[[Operation, _Channels], _Channels | None]:
    def reduce(operation: Operation, channels: _Channels) -> _Channels | None:
        axes = operation.params[name]
        if channels.axis in axes:
            return None
        return channels._replace(axis=channels.axis - sum(a < channels.axis for a in axes))

    return reduce


# Operations that take one array, and where they leave its channels.
MOVES: Mapping[str, Callable[[Operation, _Channels], _Channels | None]] = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transposed,
    "reshape": _reshaped,
    "squeeze": _without_axes("dimensions"),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _without_axes("axes")),
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_sum", "reduce_window", "pad", "slice"), _same_place
    ),
}
