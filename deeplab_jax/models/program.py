"""A traced network as a flat list of operations, each with the module that asked for it."""

import itertools
from collections.abc import Iterator, Sequence
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
            return getattr(called, "jaxpr", called)
    return None
