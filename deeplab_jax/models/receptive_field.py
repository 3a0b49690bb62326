"""Receptive fields of feature maps, computed from the traced program of a network.

The program is a list of operations. Starting from the image, the size of the receptive field and
the distance between neighboring values (both in image pixels) are propagated through every
operation, for each spatial axis. Padding is ignored, so a receptive field may exceed the image.
Arrays without spatial axes (image pooling, squeeze and excitation) depend on the whole image and
are ignored.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend import core

# Names of the parameters in which JAX stores the inner program of a call.
CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Value(NamedTuple):
    """Array in a program, identified by a unique number.

    Attributes:
      number: number of the array, in order of computation.
      shape: shape of the array.
    """

    number: int
    shape: tuple[int, ...]


class Operation(NamedTuple):
    """Primitive operation of a program.

    Attributes:
      name: name of the primitive.
      params: parameters of the primitive.
      inputs, outputs: operands and results.
      path: path of the module that contains the operation, such as `backbone/block1/unit_1/conv1`.
    """

    name: str
    params: dict[str, Any]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    path: str


class Program(NamedTuple):
    """Traced function, with all calls of inner functions inlined.

    Attributes:
      inputs, outputs: arguments and results of the function.
      operations: primitive operations in order of computation.
    """

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Value, ...]


def flatten(traced: core.ClosedJaxpr) -> Program:
    """Returns the program of a traced function, with all calls inlined."""
    return _Flattening().program(traced.jaxpr)


def module_path(scopes: Sequence[str]) -> str:
    """Returns the path of a module, given the named scopes that Flax adds to an operation.

    The path omits the first scope, which is the class of the model, and scopes with a dot, such as
    `conv1._convolve`, which are methods.
    """
    return "/".join(scope for scope in scopes[1:] if "." not in scope)


class _Flattening:
    """Inlines the calls of one program and numbers its arrays."""

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
        """Returns the `Value` of a variable; literals and closed-over constants get a new one."""
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
    """Returns the inner program of a call, or None for other operations.

    Raises:
      NotImplementedError: the operation is a loop or a conditional.
    """
    if equation.primitive.name in ("cond", "scan", "while"):
        raise NotImplementedError(
            f"receptive fields of networks with the operation {equation.primitive.name} are not "
            "supported"
        )
    for called in map(equation.params.get, CALLED):
        if isinstance(called, core.ClosedJaxpr | core.Jaxpr):
            return called.jaxpr if isinstance(called, core.ClosedJaxpr) else called
    return None


# Modules whose output counts as depending on the whole image, even if it is computed from averages
# over windows: image pooling, and the gate of LR-ASPP.
IMAGE_LEVEL_MODULES = frozenset({"image_pooling", "gate"})
# Spatial axes of [N, H, W, C].
SPATIAL = (1, 2)


class Extent(NamedTuple):
    """Receptive field of the values of an array along one spatial axis, in image pixels.

    Attributes:
      size: size of the receptive field.
      jump: distance between neighboring values of the array.
      interpolation: last interpolation of which the values are a result; None: there is none.
      reach: distance from the first to the last result of `interpolation` on which a value depends.
    """

    size: float
    jump: float
    interpolation: "Interpolation | None" = None
    reach: float = 0

    def seen_through(self, window: int, stride: int = 1, rate: int = 1) -> "Extent":
        """Returns the receptive field after a convolution or pooling.

        Args:
          window: number of taps along the axis.
          stride: distance between neighboring outputs, in values of the input.
          rate: distance between neighboring taps, in values of the input.
        """
        return self.extended((window - 1) * rate * self.jump)._replace(jump=self.jump * stride)

    def extended(self, distance: float) -> "Extent":
        """Returns the receptive field of all values within a distance, in image pixels."""
        if self.interpolation is None:
            return self._replace(size=self.size + distance)
        reach = self.reach + distance
        return self._replace(size=self.interpolation.size(reach), reach=reach)


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """Linear interpolation along one axis.

    Result i is at the position (i·step + offset) / unit, in samples of the input.

    Attributes:
      samples: receptive field of the input.
      step, offset, unit: integers that determine the positions of the results.
    """

    samples: Extent
    step: int
    offset: int
    unit: int

    @property
    def jump(self) -> float:
        """Distance between neighboring results, in image pixels."""
        return self.samples.jump * self.step / self.unit

    def size(self, reach: float) -> float:
        """Returns the size of the receptive field of all results within a distance.

        A result between two samples depends on both, so the size depends on the position of the
        first result. The largest size is returned.

        Args:
          reach: distance from the first to the last result, in image pixels.
        """
        beyond = round(reach / self.jump) * self.step if self.jump else 0
        # The positions between two samples repeat after this number of results.
        period = self.unit // math.gcd(self.step, self.unit)
        firsts = (index * self.step + self.offset for index in range(period))
        intervals = max(-(-(first + beyond) // self.unit) - first // self.unit for first in firsts)
        return self.samples.extended(intervals * self.samples.jump).size


# One entry per axis of an array; None for axes that are not spatial.
Field = tuple[Extent | None, ...]


def receptive_field(
    program: Program, image: Value, target: Value, align_corners: bool = True
) -> int:
    """Returns the larger side of the receptive field of an array, in image pixels.

    Args:
      program: traced network.
      image: input of the network, [N, H, W, C].
      target: array of the program. If this array depends on the image only through image pooling,
        the result is 0.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.

    Raises:
      NotImplementedError: an operation between `image` and `target` is not supported.
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
        raise NotImplementedError(
            f"receptive fields of networks with the operation {name} (in {operation.path}) are not "
            "supported"
        )
    # Elementwise operations, and concatenation along another axis.
    return _widest([field for field in given if len(field) == rank])


def _widest(fields: Sequence[Field]) -> Field:
    """Returns the largest receptive field along each axis; None where all `fields` have None."""
    return tuple(
        max(filter(None, extents), key=lambda extent: extent[:2], default=None)
        for extents in zip(*fields, strict=True)
    )


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
    """Returns the receptive field after a reshape that adds or removes axes of length 1."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if before == after:
        return field
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        raise NotImplementedError(
            f"receptive fields of networks with a reshape of {before} to {after} are not supported"
        )
    kept = iter([extent for n, extent in zip(before, field, strict=True) if n > 1])
    return tuple(next(kept) if n > 1 else None for n in after)


def _matrix_product(operation: Operation, given: Sequence[Field], align_corners: bool) -> Field:
    """Returns the receptive field after interpolation, which is a product with a matrix.

    After several interpolations, the result can exceed the receptive field, because it assumes that
    the first results of all interpolations have the least favorable position between two samples.
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
    # The positions are those of `ops.interpolation_matrix`.
    positions = (2 * source, source - target, 2 * target)
    if align_corners:
        positions = (source - 1, 0, max(target - 1, 1))
    interpolation = Interpolation(resized, *positions)
    extents[first] = Extent(interpolation.size(0), interpolation.jump, interpolation)
    return tuple(extents)


FOLLOW: dict[str, Callable[[Operation, Field], Field]] = {
    "broadcast_in_dim": _broadcast,
    "conv_general_dilated": _convolve,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _reshape,
    "transpose": _transpose,
}
