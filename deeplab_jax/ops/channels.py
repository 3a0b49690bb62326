"""GELU and normalizations over channels.

In an exported program, each of these operations is one function call. Converters to other formats
recognize the operation by the name of the called function.
"""

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import named

# Names of the functions in exported programs; the last two contain epsilon.
GELU_NAME = "gelu"
STANDARDIZE_NAME = "standardize_channels_{:g}"
NORMS_NAME = "relative_norms_{:g}"


def gelu(inputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes the exact GELU (arXiv 1606.08415), without the approximation by tanh.

    The result is x·Φ(x), where Φ is the cumulative distribution function of the standard normal
    distribution.

    Args:
      inputs: floating point, of any shape.
    """
    return named(GELU_NAME, _gelu, inputs)


def _gelu(inputs: jax.Array) -> jax.Array:
    scaled = inputs * jnp.asarray(0.5**0.5, inputs.dtype)
    # In bfloat16, 1 + erf(x) is a multiple of 2⁻⁸ where erf(x) is below −0.5. In float32, erfc(−x)
    # takes twice as long on CPUs.
    is_narrow = jnp.finfo(inputs.dtype).bits < 32
    return 0.5 * inputs * (jax.lax.erfc(-scaled) if is_narrow else 1 + jax.lax.erf(scaled))


def standardize_channels(
    inputs: Float[Array, "N H W C"], epsilon: float
) -> Float[Array, "N H W C"]:
    """Scales the channels of each pixel to mean 0 and variance 1.

    Args:
      inputs: [N, H, W, C], floating point.
      epsilon: constant added to the variance.

    Returns:
      [N, H, W, C] in the dtype of the inputs.
    """

    def standardize(inputs: jax.Array) -> jax.Array:
        centered = inputs - jnp.mean(inputs, -1, keepdims=True)
        variance = jnp.mean(centered * centered, -1, keepdims=True)
        return centered * jax.lax.rsqrt(variance + epsilon)

    return named(STANDARDIZE_NAME.format(epsilon), standardize, inputs)


def relative_norms(inputs: Float[Array, "N H W C"], epsilon: float) -> Float[Array, "N 1 1 C"]:
    """Returns the L2 norm of each channel, divided by the mean of the norms of all channels.

    The norm of a channel is taken over all pixels of an image. The mean is taken over all channels
    of the same image. Global response normalization (ConvNeXt V2) uses this function.

    Args:
      inputs: [N, H, W, C], floating point.
      epsilon: constant added to the mean.

    Returns:
      [N, 1, 1, C] in the dtype of the inputs.
    """

    def relative(inputs: jax.Array) -> jax.Array:
        squares = jnp.sum(inputs * inputs, (1, 2), keepdims=True)
        # The gradient of the square root is infinite at 0, the norm of a channel of zeros.
        norms = jnp.sqrt(jnp.maximum(squares, np.finfo(inputs.dtype).tiny))
        return norms / (jnp.mean(norms, -1, keepdims=True) + epsilon)

    return named(NORMS_NAME.format(epsilon), relative, inputs)


def parse_channels_name(name: str) -> tuple[str, float] | None:
    """Parses the operation and the epsilon from the name of a function in an exported program.

    Converters to other formats use the result to translate calls of the named function.

    Args:
      name: name of any function in the program, such as `relative_norms_1e-06`.

    Returns:
      (name of the operation, epsilon), such as ("relative_norms", 1e-6); None if the name belongs
      to neither `standardize_channels` nor `relative_norms`.
    """
    for template in (STANDARDIZE_NAME, NORMS_NAME):
        start = template.partition("{")[0]
        if name.startswith(start):
            return start.rstrip("_"), float(name.removeprefix(start))
    return None
