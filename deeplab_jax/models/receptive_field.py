"""A network's traced program as operations, and the receptive field of its maps.

Follows the image through the program: a map knows, for each of its axes that is one of the image's,
how far its values see and how far apart they lie. Padding does not count, so a receptive field may
be larger than the image. An array that has lost a spatial axis to a sum or a maximum (image
pooling, squeeze and excitation) no longer takes part: it would see everything.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend import core

# Parameters under which JAX keeps the program that an operation calls with all its operands.
CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Value(NamedTuple):
    """An array in the program: a number that no other has, and its shape."""

    number: int
    shape: tuple[int, ...]


class Operation(NamedTuple):
    """One primitive of the program.

    Attributes:
      name: of the primitive.
      params: of the primitive.
      inputs, outputs: the arrays it takes and gives.
      path: of the module that it belongs to, as in `backbone/block1/unit_1/conv1`.
    """

    name: str
    params: dict[str, Any]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    path: str


class Program(NamedTuple):
    """A traced function without calls."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Value, ...]


def flatten(traced: core.ClosedJaxpr) -> Program:
    """Returns the program with every call replaced by what it calls."""
    return _Flattening().program(traced.jaxpr)


def module_path(scopes: Sequence[str]) -> str:
    """Returns the path of a module from the named scopes that Flax opens.

    They begin with the class of the whole model; a scope such as `conv1._convolve` is a method.
    """
    return "/".join(scope for scope in scopes[1:] if "." not in scope)


class _Flattening:
    """Numbers the arrays of one program."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def program(self, jaxpr: core.Jaxpr) -> Program:
        values = {variable: self._value(variable) for variable in jaxpr.invars}
        operations = tuple(self._operations(jaxpr, values, ()))
        inputs, outputs = (
            tuple(self._look_up(values, variable) for variable in variables)
            for variables in (jaxpr.invars, jaxpr.outvars)
        )
        return Program(inputs, operations, outputs)

    def _value(self, variable: Any) -> Value:
        return Value(next(self._numbers), tuple(variable.aval.shape))

    def _look_up(self, values: dict[core.Var, Value], variable: Any) -> Value:
        """A literal, or a constant that the trace closed over, is an array of its own."""
        if isinstance(variable, core.Literal) or variable not in values:
            return self._value(variable)
        return values[variable]

    def _operations(
        self, jaxpr: core.Jaxpr, values: dict[core.Var, Value], outer: tuple[str, ...]
    ) -> Iterator[Operation]:
        for equation in jaxpr.eqns:
            inputs = tuple(self._look_up(values, variable) for variable in equation.invars)
            stack = equation.source_info.name_stack.stack
            scopes = (*outer, *(scope.name for scope in stack))
            called = _called(equation)
            if called is None:
                outputs = tuple(self._value(variable) for variable in equation.outvars)
                path = module_path(scopes)
                yield Operation(equation.primitive.name, equation.params, inputs, outputs, path)
            else:
                inner = dict(zip(called.invars, inputs, strict=True))
                yield from self._operations(called, inner, scopes)
                outputs = tuple(self._look_up(inner, variable) for variable in called.outvars)
            values.update(zip(equation.outvars, outputs, strict=True))


def _called(equation: Any) -> core.Jaxpr | None:
    """Returns the program that an operation calls once with its operands; None: it calls none.

    Raises:
      NotImplementedError: it is a loop or a choice, so what it calls is not simply in its place.
    """
    if equation.primitive.name in ("cond", "scan", "while"):
        raise NotImplementedError(f"cannot follow the operation {equation.primitive.name}")
    for called in map(equation.params.get, CALLED):
        if isinstance(called, core.ClosedJaxpr | core.Jaxpr):
            return called.jaxpr if isinstance(called, core.ClosedJaxpr) else called
    return None


# Of modules that pool over windows as large as a crop: they too stand for the whole image.
IMAGE_LEVEL_MODULES = frozenset({"image_pooling"})
# Of [N, H, W, C].
SPATIAL = (1, 2)


class Extent(NamedTuple):
    """Pixels along one axis of the image.

    Attributes:
      size: of the receptive field.
      jump: from one value of the map to the next.
    """

    size: float
    jump: float

    def seen_through(self, window: int, stride: int = 1, rate: int = 1) -> "Extent":
        """Returns the extent after a window of taps `rate` values apart."""
        return Extent(self.size + (window - 1) * rate * self.jump, self.jump * stride)


# An entry for each axis of an array; None where it is none of the image's.
Field = tuple[Extent | None, ...]


def receptive_field(
    program: Program, image: Value, target: Value, align_corners: bool = True
) -> int:
    """Returns the receptive field of an array in pixels, along the longer side.

    Args:
      program: the network.
      image: its input [N, H, W, C].
      target: any array in it; 0 where it has no path to the image but through pooling of the whole.
      align_corners: convention of the resizes (see `ops.resize_bilinear`).

    Raises:
      NotImplementedError: an operation between them mixes axes in an unknown way.
    """
    pixel = Extent(1, 1)
    fields: dict[int, Field] = {image.number: (None, pixel, pixel, None)}
    for operation in program.operations:
        given = [fields.get(value.number, (None,) * len(value.shape)) for value in operation.inputs]
        if any(map(any, given)):
            field = _follow(operation, given, align_corners)
            fields |= {value.number: field for value in operation.outputs}
    extents = filter(None, fields.get(target.number, ()))
    return math.ceil(max((extent.size for extent in extents), default=0))


def _follow(operation: Operation, given: Sequence[Field], align_corners: bool) -> Field:
    rank = len(operation.outputs[0].shape)
    if IMAGE_LEVEL_MODULES.intersection(operation.path.split("/")):
        return (None,) * rank
    name = operation.name
    if name in FOLLOW:
        return FOLLOW[name](operation, given[0])
    if name == "dot_general":
        return _matrix_product(operation, given, align_corners)
    if name.startswith("reduce_window"):
        return _pool(operation, given[0])
    if name.startswith(("reduce_", "arg")):
        return _reduce(operation, given[0])
    if any(len(field) != rank for field in given if any(field)):
        raise NotImplementedError(f"cannot follow the operation {name} in {operation.path}")
    # Operations on single values, and concatenation along another axis.
    return _widest([field for field in given if len(field) == rank])


def _widest(fields: Sequence[Field]) -> Field:
    """Returns, axis by axis, the largest of several extents."""
    return tuple(max(filter(None, extents), default=None) for extents in zip(*fields, strict=True))


def _convolve(operation: Operation, field: Field) -> Field:
    kernel, params = operation.inputs[1].shape, operation.params
    extents = list(field)
    for axis, window, stride, rate in zip(
        SPATIAL, kernel[:2], params["window_strides"], params["rhs_dilation"], strict=True
    ):
        if extent := field[axis]:
            extents[axis] = extent.seen_through(window, stride, rate)
    return (*extents[:3], None)


def _pool(operation: Operation, field: Field) -> Field:
    params = operation.params
    return tuple(
        extent and extent.seen_through(*window)
        for extent, *window in zip(
            field,
            params["window_dimensions"],
            params["window_strides"],
            params["window_dilation"],
            strict=True,
        )
    )


def _reduce(operation: Operation, field: Field) -> Field:
    axes = operation.params["axes"]
    if any(field[axis] for axis in axes):
        return (None,) * len(operation.outputs[0].shape)
    return tuple(extent for axis, extent in enumerate(field) if axis not in axes)


def _slice(operation: Operation, field: Field) -> Field:
    strides = operation.params["strides"] or (1,) * len(field)
    return tuple(
        extent and extent.seen_through(1, stride)
        for extent, stride in zip(field, strides, strict=True)
    )


def _transpose(operation: Operation, field: Field) -> Field:
    return tuple(field[axis] for axis in operation.params["permutation"])


def _broadcast(operation: Operation, field: Field) -> Field:
    extents: list[Extent | None] = [None] * len(operation.outputs[0].shape)
    for axis, extent in zip(operation.params["broadcast_dimensions"], field, strict=True):
        extents[axis] = extent
    return tuple(extents)


def _reshape(operation: Operation, field: Field) -> Field:
    """Axes of length 1 may come and go; others must stay."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if before == after:
        return field
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        raise NotImplementedError(f"cannot follow a reshape of {before} to {after}")
    kept = iter([extent for n, extent in zip(before, field, strict=True) if n > 1])
    return tuple(next(kept) if n > 1 else None for n in after)


def _matrix_product(operation: Operation, given: Sequence[Field], align_corners: bool) -> Field:
    """Contraction of a spatial axis with a matrix is interpolation between two neighbours.

    Exact where the old samples are among the new ones; else what windows after it see is rounded
    down, by less than one old sample.
    """
    (contracted, batch) = operation.params["dimension_numbers"]
    extents = [given[0][axis] for axis in batch[0]]
    resized = None
    for operand, axes, shared in zip(given, contracted, batch, strict=True):
        resized = next((operand[axis] for axis in axes if operand[axis]), resized)
        free = [axis for axis in range(len(operand)) if axis not in (*axes, *shared)]
        extents += [operand[axis] for axis in free]
    if resized is None:
        return tuple(extents)
    matrix = next(n for n, field in enumerate(given) if not any(field))
    first = len(batch[0]) if matrix == 0 else len(extents) - 1
    source = operation.inputs[matrix].shape[contracted[matrix][0]]
    target = operation.outputs[0].shape[first]
    ratio = (source - 1) / max(target - 1, 1) if align_corners else source / target
    extents[first] = Extent(resized.size + resized.jump, resized.jump * ratio)
    return tuple(extents)


FOLLOW: dict[str, Callable[[Operation, Field], Field]] = {
    "broadcast_in_dim": _broadcast,
    "conv_general_dilated": _convolve,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _reshape,
    "transpose": _transpose,
}
