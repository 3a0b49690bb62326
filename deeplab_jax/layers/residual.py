"""Layers of residual units: layer and response normalization, gates, and stochastic depth."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.conv_norm import Form
from deeplab_jax.layers.convolution import Convolution


class LayerNorm(nn.Module):
    """Layer normalization over the channels of each pixel (arXiv 1607.06450).

    Attributes:
      epsilon: constant added to the variance.
      form: settings common to all layers, see `Form`.
    """

    epsilon: float = 1e-6
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Normalizes an array [N, H, W, C]; the result has the computation dtype."""
        channels, dtype = inputs.shape[-1:], self.form.parameter_dtype
        scale = self.param("scale", nn.initializers.ones, channels, dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, dtype)
        standard = ops.standardize_channels(inputs.astype(dtype), self.epsilon)
        return (standard * scale + bias).astype(self.form.dtype)


class GlobalResponseNorm(nn.Module):
    """Global response normalization (arXiv 2301.00808, algorithm 1).

    The output is inputs·(scale·relative + 1) + bias. For each image and channel, `relative` is the
    L2 norm of the channel over all pixels, divided by the mean of the norms of all channels. The
    learned scale and bias are 0 at initialization, so the layer is then the identity.

    Attributes:
      form: settings common to all layers, see `Form`.
      epsilon: constant added to the mean of the norms.
    """

    form: Form = Form()
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Normalizes an array [N, H, W, C]; the result has the computation dtype."""
        channels, dtype = inputs.shape[-1:], self.form.parameter_dtype
        scale = self.param("scale", nn.initializers.zeros, channels, dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, dtype)
        values = inputs.astype(dtype)
        relative = ops.relative_norms(values, self.epsilon)
        return (values * (scale * relative + 1) + bias).astype(self.form.dtype)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation: multiplies channels by a gate (arXiv 1709.01507).

    Two 1×1 convolutions compute the gate of each channel from the means of all channels over the
    pixels of an image.

    Attributes:
      squeezed: number of channels between the two convolutions.
      activation: activation function between the two convolutions.
      gate: function that maps the output of the second convolution to the gate.
      form: settings common to all layers, see `Form`.
    """

    squeezed: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Multiplies an array [N, H, W, C] by the gate of each image and channel."""
        accurate = jnp.promote_types(self.form.dtype, jnp.float32)
        hidden = ops.mean_over_map(inputs.astype(accurate)).astype(self.form.dtype)
        for name, channels, function in (
            ("squeeze", self.squeezed, self.activation),
            ("excite", inputs.shape[-1], self.gate),
        ):
            convolution = Convolution(
                channels, kernel_size=1, activation=function, form=self.form, name=name
            )
            hidden = convolution(hidden)
        return inputs * hidden


class StochasticDepth(nn.Module):
    """Stochastic depth: drops a residual branch for random images in training (arXiv 1603.09382).

    If the branch of an image is kept, its values are divided by the probability of keeping it. The
    random numbers are from the Flax random stream `dropout`. In evaluation, or with a rate of 0,
    this module is the identity.

    Attributes:
      rate: probability of dropping the branch.
    """

    rate: float

    @nn.compact
    def __call__(self, branch: jax.Array, train: bool) -> jax.Array:
        """Drops or scales the branch of each image, an array [N, H, W, C]."""
        dropout = nn.Dropout(self.rate, broadcast_dims=(1, 2, 3))
        return dropout(branch, deterministic=not train)


def depth_rates(maximum: float, count: int) -> list[float]:
    """Returns the probability of dropping the residual branch of each unit (stochastic depth).

    The probability increases linearly from 0 at the first unit.

    Args:
      maximum: probability of dropping the branch of the last unit.
      count: number of units.
    """
    return [maximum * number / max(count - 1, 1) for number in range(count)]
