"""What goes into each convolution of a network, summed up in some statistic."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.deploy.variable_paths import Path
from deeplab_jax.layers import is_convolution
from deeplab_jax.models import DeepLab


def input_statistics(
    model: DeepLab, statistic: Callable[[jax.Array], Any]
) -> Callable[[Any, jax.Array], dict[Path, Any]]:
    """Returns the jitted function (variables, images) → statistic by the path of the convolution.

    A network at several scales calls each convolution once a scale; then it is the mean over them.

    Args:
      model: in evaluation; images are uint8 [N, H, W, C].
      statistic: of a convolution's inputs, float32 [N, h, w, c], to arrays whose shapes do not
        depend on h and w.
    """

    @jax.jit
    def measure(variables: Any, images: jax.Array) -> dict[Path, Any]:
        found: dict[Path, list[Any]] = {}

        def record(call, arguments, keywords, context):
            if is_convolution(context.module, context.method_name):
                inputs = ops.as_array(arguments[0]).astype(jnp.float32)
                found.setdefault(context.module.path, []).append(statistic(inputs))
            return call(*arguments, **keywords)

        with nn.intercept_methods(record):
            model.apply(variables, images, train=False)
        return {path: jax.tree.map(_mean, *several) for path, several in found.items()}

    return measure


def _mean(*several: jax.Array) -> jax.Array:
    return jnp.stack(several).mean(0)
