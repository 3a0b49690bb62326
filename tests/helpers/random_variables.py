"""Random variables with which every layer has an effect, without compiling `init`."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util


def random_variables(module: nn.Module, *inputs: Any, **options: Any) -> dict[str, Any]:
    """Returns float32 variables of a module that is called with these inputs and options.

    Kernels preserve the variance; scales and variances are near 1, offsets and means near 0.
    """
    shapes = jax.eval_shape(
        lambda *given: module.init(jax.random.key(0), *given, **options), *inputs
    )
    random = np.random.default_rng(0)
    flat = traverse_util.flatten_dict(shapes)
    return traverse_util.unflatten_dict(
        {path: _draw(random, path[-1], leaf.shape) for path, leaf in flat.items()}
    )


def _draw(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    match name:
        case "kernel":
            values = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        case "scale" | "var":
            values = random.uniform(0.5, 1.5, shape)
        case _:
            values = random.normal(0, 0.2, shape)
    return values.astype(np.float32)
