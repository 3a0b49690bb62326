"""Translates a traced program (jaxpr) to the operations of another runtime.

The programs of `make_program` consist of about twenty JAX primitives on maps [N, H, W, C].
`translate` calls a method of a `Writer` for each primitive; every runtime has its own `Writer`,
which writes operations of the runtime. `translate` also evaluates constant expressions, and
combines each convolution with the bias that is added to its result.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from deeplab_jax.errors import DeepLabError
from deeplab_jax.ops import (
    GELU_NAME,
    MEAN_NAME,
    PAIRS_NAME,
    RESIZE_NAMES,
    Padding,
    parse_channels_name,
    parse_windows_name,
)

# Value of a translated program: an object of the runtime's `Writer`, or a constant (NumPy array).
Value = Any
Pair = tuple[int, int]
# Row and column, integer or symbolic.
Corner = Sequence[Any]


class Geometry(NamedTuple):
    """Stride, padding and dilation rate (rows, columns), and number of groups of a convolution."""

    stride: Pair
    padding: Padding
    rate: Pair
    groups: int


class Writer(Protocol):
    """Protocol of classes that write the operations of one runtime.

    Each method writes an operation and returns its result. Arguments describe maps as [N, H, W, C],
    even if the runtime orders them as [N, C, H, W]. A constant operand of `binary` is a NumPy array
    that broadcasts against the other operand.
    """

    def convolution(
        self, inputs: Value, kernel: np.ndarray, bias: np.ndarray | None, geometry: Geometry
    ) -> Value:
        """Convolves inputs with a kernel [rows, columns, in / groups, out].

        The bias is added to the result, unless it is None.
        """

    def binary(self, name: str, left: Value, right: Value) -> Value:
        """Applies a binary operation to each pair of elements.

        The `name` of the operation is `add`, `sub`, `mul`, `div`, `max` or `min`.
        """

    def resize(self, inputs: Value, like: Sequence[Any], align_corners: bool) -> Value:
        """Resizes inputs bilinearly to the shape `like`, [N, H, W, C]; H and W may be symbolic."""

    def mean(self, inputs: Value) -> Value:
        """Averages over H and W; returns [N, 1, 1, C]."""

    def mean_over_windows(self, inputs: Value, window: Pair, stride: Pair) -> Value:
        """Averages over windows of a map whose H and W are known only at run time.

        Windows that are larger than the map are clipped to it. `window` and `stride` are in pixels,
        for rows and columns.
        """

    def pool(self, kind: str, inputs: Value, window: Pair, stride: Pair, padding: Padding) -> Value:
        """Computes the maximum, the sum or the mean over each window.

        The argument `kind` is `max`, `sum` or `mean`. The mean is over the pixels of a window that
        lie inside the map, not over padding.
        """

    def sigmoid(self, inputs: Value) -> Value:
        """Applies the logistic function."""

    def gelu(self, inputs: Value) -> Value:
        """Applies the exact GELU, x · Φ(x), not its approximation by tanh."""

    def standardize_channels(self, inputs: Value, epsilon: float) -> Value:
        """Scales the channels of each pixel to mean 0 and variance 1, as layer normalization does.

        Epsilon is added to the variance before the division.
        """

    def relative_norms(self, inputs: Value, epsilon: float) -> Value:
        """Returns relative channel norms, [N, 1, 1, C], as in global response normalization.

        The L2 norm of each channel over H and W is divided by the sum of epsilon and the mean of
        the norms of all channels.
        """

    def slice(self, inputs: Value, start: Corner, stop: Corner, stride: Pair) -> Value:
        """Returns every `stride`-th row and column from `start` to before `stop`.

        `start`, `stop` and `stride` are pairs: the value for rows, and the value for columns.
        """

    def concatenate(self, inputs: Sequence[Value], axis: int) -> Value:
        """Concatenates maps along an axis of [N, H, W, C]."""

    def reverse_channels(self, inputs: Value) -> Value:
        """Reverses three channels, which converts between RGB and BGR."""

    def cast(self, inputs: Value, dtype: np.dtype) -> Value:
        """Converts a value to a dtype."""

    def argmax(self, inputs: Value) -> Value:
        """Returns the index of the channel with the largest value, int32 [N, H, W]."""

    def seen(self, value: Value, shape: Sequence[Any]) -> None:
        """Receives the traced shape of the input image, or of a value that was written.

        `translate` calls this method for the image and for each written value. The ONNX writer
        stores the shapes, and computes variable heights and widths from them. In other writers,
        this method does nothing.
        """


def flat_padding(padding: Padding) -> list[int]:
    """Returns padding as [top, bottom, left, right]."""
    (top, bottom), (left, right) = padding
    return [top, bottom, left, right]


def channels_first(value: Value) -> Value:
    """Reshapes a constant for maps [N, H, W, C], so that it broadcasts against maps [N, C, H, W].

    Scalars, and values that are not constant arrays, are returned unchanged.
    """
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 4:
        return value.transpose(0, 3, 1, 2)
    return value.reshape(-1, 1, 1) if value.ndim == 1 else value


class _Convolution(NamedTuple):
    """A convolution that is not yet written, because a bias may be added to its result.

    Attributes:
      inputs, kernel, geometry: arguments of `Writer.convolution`.
      shape: traced shape of the result, [N, H, W, C].
    """

    inputs: Value
    kernel: np.ndarray
    geometry: Geometry
    shape: tuple[Any, ...]


def translate(program: ClosedJaxpr, image: Value, writer: Writer) -> Value:
    """Writes the operations of a program with the writer of a runtime, and returns the output.

    Args:
      program: jaxpr with one input. It must be traced with `ops.Dispatch(export=True)`, so that it
        contains only operations that runtimes have, such as plain convolutions.
      image: input of the program, as a value of the runtime.
      writer: writer for the runtime.

    Returns:
      The output of the program, as a value of the runtime.

    Raises:
      DeepLabError: the program contains a primitive that writers do not support.
    """
    writer.seen(image, _traced(program.jaxpr.invars[0]).shape)
    walk = _Walk(writer)
    (output,) = walk.run(program.jaxpr, list(map(np.asarray, program.consts)), [image])
    return walk.settled(output)


class _Walk:
    """Translation of one program: iterates over its equations and calls a writer."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def settled(self, value: Value, bias: np.ndarray | None = None) -> Value:
        """Writes a convolution that is not yet written, and returns its result.

        If `value` is not a `_Convolution`, it is already written or constant, and is returned
        unchanged.

        Args:
          value: value of the translated program.
          bias: bias of the convolution, or None.
        """
        if not isinstance(value, _Convolution):
            return value
        result = self.writer.convolution(value.inputs, value.kernel, bias, value.geometry)
        self.writer.seen(result, value.shape)
        return result

    def run(self, jaxpr: Jaxpr, constants: list[np.ndarray], inputs: list[Value]) -> list[Value]:
        """Translates the whole program or a called function, and returns the values of its outputs.

        Args:
          jaxpr: program or function to translate.
          constants: values of the constants of `jaxpr`.
          inputs: values of the inputs of `jaxpr`.
        """
        known: dict[Var, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))
        needed = _needed(jaxpr)
        for equation in jaxpr.eqns:
            if not needed[equation.outvars[0]]:
                continue
            values = [_value(known, atom) for atom in equation.invars]
            results = self._results(equation, values)
            for variable, result in zip(equation.outvars, results, strict=True):
                known[variable] = result
                if not isinstance(result, np.ndarray | _Convolution):
                    self.writer.seen(result, _traced(variable).shape)
        return [_value(known, atom) for atom in jaxpr.outvars]

    def _results(self, equation: JaxprEqn, values: list[Value]) -> list[Value]:
        primitive, called = equation.primitive.name, _called(equation)
        if called is not None:
            name = equation.params.get("name")
            if name in _NAMED:
                return [_NAMED[name](self.writer, equation, *map(self.settled, values))]
            if name and (windows := parse_windows_name(name)):
                return [self.writer.mean_over_windows(self.settled(values[0]), *windows)]
            if name and (operation := parse_channels_name(name)):
                method, epsilon = operation
                return [getattr(self.writer, method)(self.settled(values[0]), epsilon)]
            return self.run(called.jaxpr, list(map(np.asarray, called.consts)), values)
        if primitive == "broadcast_in_dim":
            return [_broadcast(equation, self.settled(values[0]))]
        if all(isinstance(value, np.ndarray) for value in values):
            return [np.asarray(equation.primitive.bind(*values, **equation.params))]
        if primitive == "conv_general_dilated":
            names = "window_strides", "padding", "rhs_dilation", "feature_group_count"
            geometry = Geometry(*(equation.params[name] for name in names))
            shape = _traced(equation.outvars[0]).shape
            return [_Convolution(self.settled(values[0]), values[1], geometry, shape)]
        if primitive == "add" and (biased := self._biased(*values)) is not None:
            return [biased]
        if primitive not in _PRIMITIVES:
            raise DeepLabError(
                f"the export format does not support {primitive}, an operation of this network; "
                "export with --format=stablehlo, which supports all networks"
            )
        return [_PRIMITIVES[primitive](self.writer, equation, *map(self.settled, values))]

    def _biased(self, left: Value, right: Value) -> Value | None:
        """Writes the sum of a convolution and a constant as one convolution with bias.

        Args:
          left, right: operands of the addition, in either order.

        Returns:
          The result of the convolution. If the operands are not an unwritten convolution and a
          constant, nothing is written, and the result is None.
        """
        for convolution, bias in ((left, right), (right, left)):
            if isinstance(convolution, _Convolution) and isinstance(bias, np.ndarray):
                channels = convolution.kernel.shape[-1]
                return self.settled(convolution, np.broadcast_to(bias.ravel(), channels))
        return None


def _needed(jaxpr: Jaxpr) -> Counter[Var]:
    """Counts how often each variable is used: as an output, or as an operand of a needed equation.

    An equation is needed if an output depends on its result. Other equations are not translated.
    """
    uses = Counter(atom for atom in jaxpr.outvars if isinstance(atom, Var))
    for equation in reversed(jaxpr.eqns):
        if any(uses[variable] for variable in equation.outvars):
            uses.update(atom for atom in equation.invars if isinstance(atom, Var))
    return uses


def _traced(atom: Var | Literal) -> ShapedArray:
    """Returns shape and dtype of a variable or literal of the program, which must be an array."""
    if not isinstance(atom.aval, ShapedArray):
        raise TypeError(f"{atom} in the traced network must be an array, got {atom.aval}")
    return atom.aval


def _value(known: dict[Var, Value], atom: Var | Literal) -> Value:
    return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]


def _called(equation: JaxprEqn) -> ClosedJaxpr | None:
    found = (equation.params.get(name) for name in ("jaxpr", "call_jaxpr"))
    return next((called for called in found if isinstance(called, ClosedJaxpr)), None)


def _broadcast(equation: JaxprEqn, value: Value) -> Value:
    """Translates a `broadcast_in_dim` equation without writing an operation.

    No operation is required, because the operation that uses the result of the equation broadcasts
    its operands if they have the same rank.

    Args:
      equation: the equation.
      value: operand of the equation.

    Returns:
      The operand. If it is a constant, axes of length 1 are inserted, so that it has the rank of
      the result of the equation.
    """
    if not isinstance(value, np.ndarray):
        return value
    shape = [1] * len(equation.params["shape"])
    for axis, length in zip(equation.params["broadcast_dimensions"], value.shape, strict=True):
        shape[axis] = length
    return value.reshape(shape)


def _resize(align_corners: bool, writer: Writer, equation: JaxprEqn, inputs: Value) -> Value:
    return writer.resize(inputs, _traced(equation.outvars[0]).shape, align_corners)


def _binary(writer: Writer, equation: JaxprEqn, left: Value, right: Value) -> Value:
    return writer.binary(equation.primitive.name, left, right)


def _pool(kind: str, writer: Writer, equation: JaxprEqn, inputs: Value, *_: Value) -> Value:
    names = "window_dimensions", "window_strides", "padding"
    window, stride, padding = (equation.params[name][1:3] for name in names)
    if not all(isinstance(side, int) for side in window):
        raise DeepLabError(
            "the export format does not support pooling windows whose size depends on the image "
            "size; export with a fixed size, as in --size=513x513, or with --format=stablehlo"
        )
    return writer.pool(kind, inputs, window, stride, padding)


def _slice(writer: Writer, equation: JaxprEqn, inputs: Value) -> Value:
    names = "start_indices", "limit_indices", "strides"
    start, stop, stride = (equation.params[name] or (1, 1, 1, 1) for name in names)
    return writer.slice(inputs, start[1:3], stop[1:3], stride[1:3])


def _concatenate(writer: Writer, equation: JaxprEqn, *inputs: Value) -> Value:
    return writer.concatenate(inputs, equation.params["dimension"])


def _cast(writer: Writer, equation: JaxprEqn, inputs: Value) -> Value:
    if _traced(equation.invars[0]).dtype == equation.params["new_dtype"]:
        return inputs
    return writer.cast(inputs, np.dtype(equation.params["new_dtype"]))


# Window, stride and padding of `ops.mean_over_pairs`.
PAIRS = (2, 2), (2, 2), ((0, 1), (0, 1))
# Functions that translate a named function or a primitive, by its name. Their arguments are the
# writer, the equation and its operands.
_NAMED: dict[str, Callable[..., Value]] = {
    MEAN_NAME: lambda writer, equation, inputs: writer.mean(inputs),
    PAIRS_NAME: lambda writer, equation, inputs: writer.pool("mean", inputs, *PAIRS),
    GELU_NAME: lambda writer, equation, inputs: writer.gelu(inputs),
    **{name: partial(_resize, align_corners) for align_corners, name in RESIZE_NAMES.items()},
}
_PRIMITIVES: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "max", "min"), _binary),
    "reduce_window_max": partial(_pool, "max"),
    "reduce_window_sum": partial(_pool, "sum"),
    "logistic": lambda writer, equation, inputs: writer.sigmoid(inputs),
    "slice": _slice,
    "concatenate": _concatenate,
    "rev": lambda writer, equation, inputs: writer.reverse_channels(inputs),
    "convert_element_type": _cast,
    "argmax": lambda writer, equation, inputs: writer.argmax(inputs),
}
