"""Convolution, batch normalization and activation, at the widths that pruning leaves."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.layers.integers import convolve_in_integers, rounded_inputs, rounded_kernel

# What the backward pass computes again instead of keeping it (arXiv 1604.06174): nothing, the
# normalizations and activations, or all inside the units that deep backbones repeat.
REMAT = ("none", "norm", "block")


@dataclasses.dataclass(frozen=True)
class Form:
    """How the layers of a network compute: one value that every module hands to its own.

    Attributes:
      dtype: of the computation; parameters and statistics are float32, or float64 where that
        computes.
      kind: `trained`; `folded`: a normalization is a bias, the rest of it is in the kernel before
        it; `int8`: convolutions compute in 8-bit integers; `rounded`: as trained, with kernels and
        inputs rounded to what 8-bit integers hold.
      widths: (path of a layer, output channels) where pruning changed the designed number.
      remat: one of `REMAT`.
    """

    dtype: jnp.dtype = jnp.float32
    kind: str = "trained"
    widths: tuple[tuple[str, int], ...] = ()
    remat: str = "none"

    @property
    def parameter_dtype(self) -> jnp.dtype:
        """Dtype of parameters and statistics."""
        return jnp.promote_types(self.dtype, jnp.float32)

    def output_channels(self, layer: nn.Module) -> int:
        """Returns how many output channels a dense layer, bound, has."""
        return dict(self.widths).get("/".join(layer.path), layer.features)

    def block(self, unit: type[nn.Module]) -> type[nn.Module]:
        """Returns the class of a backbone's unit, whose `__call__` takes inputs and `train`."""
        return nn.remat(unit, static_argnums=(2,)) if self.remat == "block" else unit


def check_widths(form: Form, params: Mapping[str, Any]) -> None:
    """Checks that every path of `Form.widths` is a layer's.

    Args:
      form: of a network.
      params: of it.

    Raises:
      DeepLabError: one is not; names the nearest.
    """
    flat = traverse_util.flatten_dict(params) if form.widths else {}
    channels = {"/".join(path[:-1]): flat[path].shape[-1] for path in flat if path[-1] == "kernel"}
    for path, width in form.widths:
        if channels.get(path) != width:
            raise unknown_name("layer in widths", path, sorted(channels))


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
            "training.accumulation_steps, model.ghost_batch_size), or give "
            "model.frozen_batch_norm=True or, for image pooling, model.image_pooling='none'"
        )


def _cause(images: int, group: int) -> str:
    return f"model.ghost_batch_size={group}" if group else f"a batch of {images}"


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
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
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
            f"model.ghost_batch_size={size} does not divide the {x.shape[0]} images that are "
            "normalised together; give a divisor of them, or 0 for all"
        )
    return x.reshape(-1, size, *x.shape[1:])


Initializer = Callable[..., jax.Array]

# slim's value; fan-out rules would count the k·k·C outputs that a depthwise kernel does not have.
DEPTHWISE_INIT = nn.initializers.truncated_normal(0.33)
CONVOLUTION_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


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


class Bias(nn.Module):
    """The bias that folding leaves of a batch normalization."""

    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to the same shape."""
        shape = inputs.shape[-1:]
        bias = self.param("bias", nn.initializers.zeros, shape, self.form.parameter_dtype)
        return inputs + bias.astype(inputs.dtype)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    """Convolutions and matrix products are worth keeping, what is cheap after them is not."""
    return primitive.name in ("conv_general_dilated", "dot_general")


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
      form: see `Form`.
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
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features].

        Raises:
          DeepLabError: see `refuse_single_values`.
        """
        if self.form.remat == "norm" and not self.is_initializing():
            again = nn.remat(ConvNorm._normalized, policy=_is_product, static_argnums=(2,))
            return again(self, inputs, train)
        return self._normalized(inputs, train)

    def padding(self, size: ops.Size) -> ops.Padding:
        """Returns the padding of an input of (height, width)."""
        if self.same_padding:
            return ops.same_padding(size, self.kernel_size, self.stride, self.rate)
        return ops.symmetric_padding(self.kernel_size, self.rate)

    def _normalized(self, inputs: jax.Array, train: bool) -> jax.Array:
        if self.form.kind == "int8":
            outputs = convolve_in_integers(self, inputs).astype(self.form.dtype)
        else:
            outputs = self._norm(train)(self._convolve(inputs, train))
        outputs = outputs if self.activation is None else self.activation(outputs)
        return ops.constrain_rows(outputs)

    def _norm(self, train: bool) -> nn.Module:
        if self.form.kind == "folded":
            return Bias(self.form, name="norm")
        constants = self.normalization
        make: Callable[..., nn.Module] = nn.BatchNorm
        if constants.group:
            make = partial(GroupedBatchNorm, group_size=constants.group)
        return make(
            use_running_average=not train or constants.frozen,
            momentum=constants.decay,
            epsilon=constants.epsilon,
            dtype=self.form.dtype,
            param_dtype=self.form.parameter_dtype,
            name="norm",
        )

    def _convolve(self, inputs: jax.Array, train: bool) -> jax.Array:
        depth, features = 1, inputs.shape[-1]
        if not self.depthwise:
            depth, features = features, self.form.output_channels(self)
        default_init = DEPTHWISE_INIT if self.depthwise else CONVOLUTION_INIT
        kernel = self.param(
            "kernel",
            self.kernel_init or default_init,
            (self.kernel_size, self.kernel_size, depth, features),
            self.form.parameter_dtype,
        )
        if self.form.kind == "rounded":
            inputs, kernel = rounded_inputs(inputs), rounded_kernel(kernel)
        inputs = inputs.astype(self.form.dtype)
        convolution = ops.depthwise_convolution if self.depthwise else ops.convolution
        outputs = convolution(
            inputs,
            kernel.astype(self.form.dtype),
            stride=self.stride,
            rate=self.rate,
            padding=self.padding(inputs.shape[1:3]),
        )
        if train and not self.normalization.frozen and not self.is_initializing():
            layer = "/".join(self.path) or "a layer"
            refuse_single_values(outputs.shape, self.normalization.group, layer)
        return outputs


POINTWISE_INIT = nn.initializers.truncated_normal(0.06)


class SeparableConvNorm(nn.Module):
    """Depthwise convolution → norm → activation → 1×1 convolution → norm → activation.

    The atrous separable convolution of DeepLab v3+, section 3.1.

    Attributes:
      features: output channels.
      normalization: constants of both batch normalisations.
      kernel_size, stride, rate: of the depthwise convolution; a pair of rates is for rows and
        columns.
      activation: after both; None where the released Xception has none.
      depthwise_init, pointwise_init: of the kernels.
      form: see `Form`.
    """

    features: int
    normalization: Normalization
    kernel_size: int = 3
    stride: int = 1
    rate: ops.Rate = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    depthwise_init: Initializer = DEPTHWISE_INIT
    pointwise_init: Initializer = POINTWISE_INIT
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features]."""
        outputs = ConvNorm(
            inputs.shape[-1],
            self.normalization,
            kernel_size=self.kernel_size,
            stride=self.stride,
            rate=self.rate,
            depthwise=True,
            activation=self.activation,
            kernel_init=self.depthwise_init,
            form=self.form,
            name="depthwise",
        )(inputs, train)
        return ConvNorm(
            self.features,
            self.normalization,
            kernel_size=1,
            activation=self.activation,
            kernel_init=self.pointwise_init,
            form=self.form,
            name="pointwise",
        )(outputs, train)
