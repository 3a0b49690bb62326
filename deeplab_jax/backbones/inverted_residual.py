"""The unit that MobileNetV2 and MobileNetV3 are built of."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import Convolution


def rounded_width(exact: float) -> int:
    """Returns a width rounded to a multiple of 8 that is not below 90 % of it (slim)."""
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole map holds (arXiv 1905.02244, section 5.3)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to the same shape."""
        channels = inputs.shape[-1]
        accurate = jnp.promote_types(self.dtype, jnp.float32)
        pooled = ops.mean_over_map(inputs.astype(accurate)).astype(self.dtype)
        convolution = partial(Convolution, kernel_size=1, dtype=self.dtype)
        squeezed = convolution(rounded_width(channels / 4), name="squeeze")(pooled)
        return inputs * convolution(channels, activation=nn.hard_sigmoid, name="excite")(squeezed)


class InvertedResidual(nn.Module):
    """Expand 1×1 → depthwise → project 1×1, with the input added where `residual`.

    Attributes:
      features: output channels.
      expanded: channels of the depthwise convolution; no expansion where the input has as many.
      stride, rate: of the depthwise convolution.
      residual: add the input if it has as many channels as the output. A unit whose nominal stride
        became a rate has none, so that its features stay those of the strided network.
      conv_norm: makes convolutions.
      kernel_size: of the depthwise convolution.
      squeeze_excitation: whether MobileNetV3's channel weights follow it.
    """

    features: int
    expanded: int
    stride: int
    rate: int
    residual: bool
    conv_norm: partial
    kernel_size: int = 3
    squeeze_excitation: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the unit's output and the depthwise convolution's, which decoders use."""
        hidden = inputs
        if self.expanded != inputs.shape[-1]:
            hidden = self.conv_norm(self.expanded, kernel_size=1, name="expand")(hidden, train)
        hidden = depthwise = self.conv_norm(
            self.expanded,
            kernel_size=self.kernel_size,
            stride=self.stride,
            rate=self.rate,
            depthwise=True,
            kernel_init=None,
            name="depthwise",
        )(hidden, train)
        if self.squeeze_excitation:
            hidden = SqueezeExcitation(hidden.dtype, name="squeeze_excitation")(hidden)
        outputs = self.conv_norm(self.features, kernel_size=1, activation=None, name="project")(
            hidden, train
        )
        if self.residual and outputs.shape[-1] == inputs.shape[-1]:
            outputs = outputs + inputs
        return outputs, depthwise
