"""Sizes and batches that an exported function leaves open."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax import export

from deeplab_jax.deploy.program import Program, Size, suits
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
    shape = export.symbolic_shape(", ".join([*names, str(channels)]), constraints=constraints)
    return jax.ShapeDtypeStruct(shape, options.input_dtype)


def check_suits(size: Size, step: int, plus: int) -> None:
    """Checks a size against those that a file with open sizes takes.

    Args:
      size: (H, W) in pixels.
      step, plus: k · step + plus is legal, k ≥ 1.

    Raises:
      DeepLabError: it is none of them; names the nearest.
    """
    if suits(size, step, plus):
        return
    below = [max(1, (side - plus) // step) * step + plus for side in size]
    above = [max(1, -(-(side - plus) // step)) * step + plus for side in size]
    nearest = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in (below, above)))
    raise DeepLabError(
        f"{size[0]}x{size[1]} does not suit this network: height and width must be k · {step}"
        f"{f' + {plus}' if plus else ''} with k from 1 on; the nearest: {nearest}"
    )


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
