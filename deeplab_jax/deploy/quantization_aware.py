"""Fine-tuning a network that sees its own rounding (arXiv 1712.05877, section 3)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.deploy.quantization import OUTPUT_CHANNELS, quantizer
from deeplab_jax.layers import is_convolution
from deeplab_jax.models import DeepLab
from deeplab_jax.training.run import Run


def quantization_aware(run: Run) -> Run:
    """Returns the run with a network that rounds kernels and inputs as int8 will."""
    quantizer()
    return dataclasses.replace(run, model=RoundedDeepLab(run.model.architecture))


class RoundedDeepLab(DeepLab):
    """A DeepLab whose convolutions see kernels and inputs rounded to what int8 can hold.

    Variables are the DeepLab's. Ranges are the batch's own: they are measured again, on their own
    images, when the trained network is quantised. A kernel and its multiple by an output channel's
    batch normalisation round alike, so folding it later changes nothing.
    """

    def apply(self, variables: Any, *arguments: Any, **keywords: Any) -> Any:
        """See `flax.linen.Module.apply`."""
        rounded = jax.tree_util.tree_map_with_path(_rounded_kernel, variables["params"])
        with nn.intercept_methods(_round_inputs):
            return super().apply({**variables, "params": rounded}, *arguments, **keywords)


def _rounded_kernel(path: tuple, array: jax.Array) -> jax.Array:
    if path[-1].key != "kernel":
        return array
    return rounded(array, channelwise_axes=(OUTPUT_CHANNELS,))


def _round_inputs(call, arguments, keywords, context):
    if not is_convolution(context.module, context.method_name):
        return call(*arguments, **keywords)
    inputs, *others = arguments
    return call(rounded(ops.as_array(inputs), calibration_method="minmax"), *others, **keywords)


def rounded(array: jax.Array, **how: Any) -> jax.Array:
    """Returns an array rounded to int8 and back, with the gradient of the array itself.

    Args:
      array: of floating-point numbers.
      **how: see `qwix.quantize`.

    Source: the straight-through estimator, arXiv 1308.3432, section 4.
    """
    from qwix import dequantize

    held = jax.lax.stop_gradient(array).astype(jnp.float32)
    levels = dequantize(quantizer()(held, jnp.int8, **how))
    return array + (levels.astype(array.dtype) - jax.lax.stop_gradient(array))
