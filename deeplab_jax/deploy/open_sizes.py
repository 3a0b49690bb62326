"""Sizes and batches that an exported function leaves open."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax import export

from deeplab_jax.deploy.program import Program
from deeplab_jax.errors import DeepLabError


def input_specification(program: Program) -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of the images; what is open is a symbol.

    The batch is `N`, a size k · step + 1 with whole k (k · step where corners do not align).
    """
    step, plus = program.step
    options, channels = program.options, program.predictor.model.architecture.in_channels
    names, constraints = ["N" if options.batch is None else str(options.batch)], []
    for axis, letter in enumerate("hw"):
        if options.size:
            names.append(str(options.size[axis]))
            continue
        names.append(f"{step}*{letter}+{plus}" if plus else f"{step}*{letter}")
        constraints.append(f"{letter} >= 1")
        if program.largest_size:
            constraints.append(f"{letter} <= {(program.largest_size[axis] - plus) // step}")
    shape = export.symbolic_shape(", ".join([*names, str(channels)]), constraints=constraints)
    return jax.ShapeDtypeStruct(shape, options.input_dtype)


@contextmanager
def open_sizes(program: Program) -> Iterator[None]:
    """Says what to do where the tracing of open sizes fails."""
    try:
        yield
    except Exception as error:
        if program.options.size or isinstance(error, DeepLabError):
            raise
        height, width = program.own_size
        raise DeepLabError(
            f"the sizes of this network cannot be left open ({type(error).__name__}); "
            f"give one, as in --size={height}x{width}"
        ) from error
