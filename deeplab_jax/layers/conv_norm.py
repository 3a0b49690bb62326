"""Convolution, batch normalisation and activation."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.batch_norm import GroupedBatchNorm, refuse_single_values
from deeplab_jax.layers.widths import output_channels

Initializer = Callable[..., jax.Array]

# slim's value; fan-out rules would count the k·k·C outputs that a depthwise kernel does not have.
DEPTHWISE_INIT = nn.initializers.truncated_normal(0.33)
CONVOLUTION_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def parameter_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype of parameters and statistics: float32, or float64 where that computes."""
    return jnp.promote_types(dtype, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Constants of batch normalisation.

    Attributes:
      decay: how much of the moving averages a step keeps (Flax calls it momentum).
      epsilon: added to the variance.
      frozen: the moving averages normalise in training too, and stay as they are (DeepLab v3,
        section 4; DeepLab v2 as released).
      group: images whose statistics normalise them together in training; 0: all of the batch, on
        whatever devices they are.
    """

    decay: float
    epsilon: float
    frozen: bool = False
    group: int = 0


class ConvNorm(nn.Module):
    """Convolution without bias → batch normalisation → activation.

    Attributes:
      features: output channels; those of the input where `depthwise`.
      normalization: constants of the batch normalisation.
      kernel_size, stride, rate: of the convolution; `rate` is the atrous rate in pixels, a pair
        for rows and columns.
      depthwise: one kernel a channel instead of a dense one.
      same_padding: TensorFlow's `SAME`, as MobileNets have it, instead of symmetric padding.
      activation: applied last; None for a linear output.
      dtype: of the computation; parameters and statistics are float32.
    """

    features: int
    normalization: Normalization
    kernel_size: int = 3
    stride: int = 1
    rate: ops.Rate = 1
    depthwise: bool = False
    same_padding: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    kernel_init: Initializer | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features].

        Raises:
          DeepLabError: see `refuse_single_values`.
        """
        outputs = self._convolve(inputs.astype(self.dtype))
        group, averaging = self.normalization.group, not train or self.normalization.frozen
        if not averaging and not self.is_initializing():
            refuse_single_values(outputs.shape, group, "/".join(self.path) or "a layer")
        normalize = partial(GroupedBatchNorm, group_size=group) if group else nn.BatchNorm
        outputs = normalize(
            use_running_average=averaging,
            momentum=self.normalization.decay,
            epsilon=self.normalization.epsilon,
            dtype=self.dtype,
            param_dtype=parameter_dtype(self.dtype),
            name="norm",
        )(outputs)
        return outputs if self.activation is None else self.activation(outputs)

    def _convolve(self, inputs: jax.Array) -> jax.Array:
        depth, features = 1, inputs.shape[-1]
        if not self.depthwise:
            depth, features = features, output_channels(self, self.features)
        default_init = DEPTHWISE_INIT if self.depthwise else CONVOLUTION_INIT
        kernel = self.param(
            "kernel",
            self.kernel_init or default_init,
            (self.kernel_size, self.kernel_size, depth, features),
            parameter_dtype(self.dtype),
        )
        padding = (
            ops.same_padding(inputs.shape[1:3], self.kernel_size, self.stride, self.rate)
            if self.same_padding
            else ops.symmetric_padding(self.kernel_size, self.rate)
        )
        convolution = ops.depthwise_convolution if self.depthwise else ops.convolution
        return convolution(
            inputs, kernel.astype(self.dtype), stride=self.stride, rate=self.rate, padding=padding
        )
