"""Batch normalisations folded into the convolutions before them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from deeplab_jax.models import DeepLab

# Small, and legal at every output stride.
PROBE_SIZE = (65, 65)

Path = tuple[str, ...]


def fold(model: DeepLab, variables: Any) -> dict[str, Any]:
    """Returns parameters in which each normalisation is a bias and the rest is in its kernel.

    y = (x ∗ w − mean)·scale/√(variance + ε) + bias = x ∗ (w·s) + (bias − mean·s), s being the same
    factor. They are to be applied inside `folded_normalizations`.

    Args:
      model: of the variables.
      variables: params and batch_stats.

    Returns:
      `{"params": …}`, float32.
    """
    params = traverse_util.flatten_dict(variables["params"])
    statistics = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    for path, epsilon in _epsilons(model, variables).items():
        factor = jax.lax.rsqrt(statistics[(*path, "var")] + epsilon) * params.pop((*path, "scale"))
        kernel = (*path[:-1], "kernel")
        params[kernel] = params[kernel] * factor
        params[(*path, "bias")] -= statistics[(*path, "mean")] * factor
    return {"params": traverse_util.unflatten_dict(params)}


@contextmanager
def folded_normalizations() -> Iterator[None]:
    """Lets every batch normalisation add its bias and do nothing else."""

    def only_bias(following: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        if not _is_normalization(context):
            return following(*args, **kwargs)
        bias = context.module.get_variable("params", "bias")
        return args[0] + bias.astype(args[0].dtype)

    with nn.intercept_methods(only_bias):
        yield


def _epsilons(model: DeepLab, variables: Any) -> dict[Path, float]:
    found: dict[Path, float] = {}

    def note(following: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        if _is_normalization(context):
            found[context.module.path] = context.module.epsilon
        return following(*args, **kwargs)

    image = jax.ShapeDtypeStruct((1, *PROBE_SIZE, model.architecture.in_channels), jnp.uint8)
    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, variables, image)
    return found


def _is_normalization(context: nn.module.InterceptorContext) -> bool:
    return isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"
