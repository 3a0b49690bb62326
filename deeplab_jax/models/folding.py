"""Batch normalisations folded into the convolutions before them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from deeplab_jax.models import parts
from deeplab_jax.models.architecture import Architecture

if TYPE_CHECKING:
    from deeplab_jax.models.deeplab import DeepLab


def fold(model: "DeepLab", variables: Any) -> tuple["DeepLab", Any]:
    """Returns the same network in which each normalisation is a bias and the rest is in its kernel.

    y = (x ∗ w − mean)·scale/√(variance + ε) + bias = x ∗ (w·s) + (bias − mean·s), s being the same
    factor. A network that has no normalisations any more comes back as it is.

    Args:
      model: of the variables.
      variables: params and batch_stats.

    Returns:
      The network, for inference alone, and its `{"params": …}`, NumPy arrays.
    """
    if model.folded or model.architecture.quantization != "none":
        return model, variables
    # In NumPy: a program of hundreds of small products takes longer to compile than to run.
    host = jax.device_get(variables)
    params = traverse_util.flatten_dict(host["params"])
    statistics = traverse_util.flatten_dict(host.get("batch_stats", {}))
    for path in {path[:-1] for path in statistics}:
        variance = statistics[(*path, "var")] + np.float32(_epsilon(model.architecture, path[0]))
        factor = params.pop((*path, "scale")) / np.sqrt(variance)
        kernel = (*path[:-1], "kernel")
        params[kernel] = params[kernel] * factor
        params[(*path, "bias")] = params[(*path, "bias")] - statistics[(*path, "mean")] * factor
    return model.clone(folded=True), {"params": traverse_util.unflatten_dict(params)}


def _epsilon(architecture: Architecture, part: str) -> float:
    if part == "backbone":
        return parts.backbone_normalization(architecture).epsilon
    return parts.HEAD_NORMALIZATION.epsilon


@contextmanager
def folded_normalizations() -> Iterator[None]:
    """Lets every batch normalisation add its bias and do nothing else."""

    def only_bias(following: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        module = context.module
        if not isinstance(module, nn.BatchNorm) or context.method_name != "__call__":
            return following(*args, **kwargs)
        (inputs,) = args
        shape = inputs.shape[-1:]
        bias = module.param("bias", nn.initializers.zeros, shape, module.param_dtype)
        return inputs + bias.astype(inputs.dtype)

    with nn.intercept_methods(only_bias):
        yield
