"""Convolution, batch normalization and activation, at the widths that pruning leaves."""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError, unknown_name


class _Widths:
    """Output channels by path of layer, and the paths of the layers that asked."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        self.channels = channels
        self.asked: set[str] = set()


_widths: contextvars.ContextVar[_Widths | None] = contextvars.ContextVar("widths", default=None)


@contextlib.contextmanager
def narrowed(channels: Mapping[str, int]) -> Iterator[None]:
    """Gives layers other numbers of output channels while a network is traced in the context.

    Depthwise layers follow their input, and layers that take what others give follow those.

    Args:
      channels: by path of the layer, as in `backbone/layer_3/expand`.

    Raises:
      DeepLabError: at the end, a path is no layer's; names the nearest.
    """
    widths = _Widths(channels)
    token = _widths.set(widths)
    try:
        yield
    finally:
        _widths.reset(token)
    for path in channels:
        if path not in widths.asked:
            raise unknown_name("layer in widths", path, sorted(widths.asked))


def output_channels(module: nn.Module, designed: int) -> int:
    """Returns how many output channels a layer has.

    Args:
      module: the layer, bound.
      designed: what its network's design says.
    """
    widths = _widths.get()
    if widths is None:
        return designed
    path = "/".join(module.path)
    widths.asked.add(path)
    return widths.channels.get(path, designed)


def refuse_single_values(shape: tuple[int, ...], group: int, layer: str) -> None:
    """Refuses to train where batch statistics would be those of one value per channel.

    Args:
      shape: [N, …, C] of what is normalized.
      group: images that are normalized together; 0: all N.
      layer: its path, for the message.

    Raises:
      DeepLabError: there is one value per channel, so every output would be 0 + bias in training
        and something else in evaluation.
    """
    if (group or shape[0]) * math.prod(shape[1:-1]) == 1:
        raise DeepLabError(
            f"{layer} cannot be trained on one value per channel ({_cause(shape[0], group)}): "
            "batch normalization makes it exactly 0, but not in evaluation; normalize at least 2 "
            "images together, better 4 or more (training.batch_size over "
            "training.accumulation_steps, model.batch_norm_group), or give "
            "model.frozen_batch_norm=True or, for image pooling, model.image_pooling='none'"
        )


def _cause(images: int, group: int) -> str:
    return f"model.batch_norm_group={group}" if group else f"a batch of {images}"


class GroupedBatchNorm(nn.BatchNorm):
    """Normalises each group of neighbouring images by its own statistics.

    Variables are those of `nn.BatchNorm`; the moving averages take the mean of the groups'
    means and variances. Where a group is what one device holds, statistics cost no communication.

    Attributes:
      group_size: images a group.

    Source: arXiv 1705.08741, section 4 ("ghost" batches).
    """

    group_size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, …, C] to the same shape; N must divide into groups unless averages are used.

        Raises:
          DeepLabError: N does not.
        """
        shape, dtype = x.shape[-1:], jnp.promote_types(jnp.float32, x.dtype)
        zeros, ones = jnp.zeros, jnp.ones
        mean = self.variable("batch_stats", "mean", zeros, shape, self.param_dtype)
        variance = self.variable("batch_stats", "var", ones, shape, self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if self.use_running_average:
            return self._normalized(x, mean.value, variance.value, scale, bias)
        groups = _groups(x, self.group_size)
        inner = tuple(range(1, groups.ndim - 1))
        values = groups.astype(dtype)
        means = values.mean(inner, keepdims=True)
        # As in Flax: one pass over the values, and never below 0.
        variances = jnp.square(values).mean(inner, keepdims=True) - jnp.square(means)
        variances = jnp.maximum(variances, 0)
        if not self.is_initializing():
            for average, seen in ((mean, means), (variance, variances)):
                seen = seen.reshape(-1, *shape).mean(0)
                average.value = self.momentum * average.value + (1 - self.momentum) * seen
        return self._normalized(groups, means, variances, scale, bias).reshape(x.shape)

    def _normalized(
        self,
        values: jax.Array,
        mean: jax.Array,
        variance: jax.Array,
        scale: jax.Array,
        bias: jax.Array,
    ) -> jax.Array:
        slope = jax.lax.rsqrt(variance + self.epsilon) * scale
        return jnp.asarray((values - mean) * slope + bias, self.dtype)


def _groups(x: jax.Array, size: int) -> jax.Array:
    """Reshapes [N, …] to [N/size, size, …]."""
    if x.shape[0] % size:
        raise DeepLabError(
            f"model.batch_norm_group={size} does not divide the {x.shape[0]} images that are "
            "normalised together; give a divisor of them, or 0 for all"
        )
    return x.reshape(-1, size, *x.shape[1:])


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
