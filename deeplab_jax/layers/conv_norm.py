"""Convolution, batch normalization and activation, and the form in which layers compute."""

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

# Scope of recomputation in the backward pass (gradient checkpointing, arXiv 1604.06174): nothing,
# normalization and activation, or everything inside the repeated units of the backbone.
REMAT = ("none", "norm", "block")


@dataclasses.dataclass(frozen=True)
class Form:
    """How the layers of a network compute; every module passes it on to its children.

    Attributes:
      dtype: dtype of the computation. Parameters and statistics are float32, or float64 for a
        computation in float64.
      kind: `trained`; `folded`: batch normalization is folded into kernels and biases; `int8`:
        convolutions compute in 8-bit integers; `rounded`: as trained, with kernels and inputs
        rounded to 8-bit values.
      widths: (path of a layer, output channels) of layers whose width pruning changed.
      remat: gradient checkpointing, one of `REMAT`.
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
        """Returns the number of output channels of a bound dense layer."""
        return dict(self.widths).get("/".join(layer.path), layer.features)

    def block(self, unit: type[nn.Module]) -> type[nn.Module]:
        """Returns a unit's class, with gradient checkpointing where `remat` is `block`.

        The `__call__` of the class must take inputs and `train`.
        """
        return nn.remat(unit, static_argnums=(2,)) if self.remat == "block" else unit


def check_widths(form: Form, params: Mapping[str, Any]) -> None:
    """Checks that every path in `Form.widths` names a layer.

    Args:
      form: form of a network.
      params: parameters of the network.

    Raises:
      DeepLabError: a path names no layer; the message names the nearest.
    """
    flat = traverse_util.flatten_dict(params) if form.widths else {}
    channels = {"/".join(path[:-1]): flat[path].shape[-1] for path in flat if path[-1] == "kernel"}
    for path, width in form.widths:
        if channels.get(path) != width:
            raise unknown_name("layer in widths", path, sorted(channels))


def refuse_single_values(shape: tuple[int, ...], group: int, layer: str) -> None:
    """Checks that batch statistics in training are of more than one value per channel.

    Args:
      shape: shape [N, …, C] of the array to normalize.
      group: number of images that are normalized together; 0 normalizes all N.
      layer: path of the layer, for the message.

    Raises:
      DeepLabError: there is one value per channel, whose normalized value is 0 in training but not
        in evaluation.
    """
    if (group or shape[0]) * math.prod(shape[1:-1]) == 1:
        raise DeepLabError(
            f"{layer} cannot be trained on one value per channel ({_cause(shape[0], group)}): "
            "batch normalization makes it exactly 0, but not in evaluation. Normalize at least 2 "
            "images together, better 4 or more (training.batch_size divided by "
            "training.accumulation_steps, model.ghost_batch_size), or set "
            "model.frozen_batch_norm=True or, for image pooling, model.image_pooling='none'"
        )


def _cause(images: int, group: int) -> str:
    return f"model.ghost_batch_size={group}" if group else f"a batch of {images}"


class GroupedBatchNorm(nn.BatchNorm):
    """Normalizes each group of neighboring images by its own statistics.

    Variables are those of `nn.BatchNorm`; the moving averages are updated with the mean over groups
    of means and variances. Groups that lie on one device need no communication.

    Attributes:
      group_size: number of images per group.

    Source: arXiv 1705.08741, section 4 ("ghost" batches).
    """

    group_size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Maps [N, …, C] to the same shape.

        Raises:
          DeepLabError: `group_size` does not divide N and batch statistics are used.
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
        # One pass over the values and at least 0, as in Flax.
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
            f"model.ghost_batch_size={size} does not divide the {x.shape[0]} images of a batch; "
            "give a divisor of their number, or 0 to normalize all together"
        )
    return x.reshape(-1, size, *x.shape[1:])


Initializer = Callable[..., jax.Array]

# As in slim; fan-out rules would count k·k·C outputs, which a depthwise kernel does not have.
DEPTHWISE_INIT = nn.initializers.truncated_normal(0.33)
CONVOLUTION_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Constants of batch normalization.

    Attributes:
      decay: fraction of the moving averages that a training step keeps (Flax: momentum).
      epsilon: constant added to the variance.
      frozen: whether training uses the moving averages and does not update them (DeepLab v3,
        section 4; DeepLab v2 as released).
      group: number of images that are normalized together in training; 0 normalizes the whole
        batch, across devices.
    """

    decay: float
    epsilon: float
    frozen: bool = False
    group: int = 0


class Bias(nn.Module):
    """Bias that replaces a folded batch normalization."""

    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to the same shape."""
        shape = inputs.shape[-1:]
        bias = self.param("bias", nn.initializers.zeros, shape, self.form.parameter_dtype)
        return inputs + bias.astype(inputs.dtype)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    """Returns whether gradient checkpointing keeps a result: only of convolutions and products."""
    return primitive.name in ("conv_general_dilated", "dot_general")


class ConvNorm(nn.Module):
    """Convolution without bias → batch normalization → activation.

    Attributes:
      features: output channels; those of the input where `depthwise` is set.
      normalization: constants of batch normalization.
      kernel_size, stride, rate: kernel size, stride and atrous rate of the convolution, in pixels;
        `rate` may be a pair for rows and columns.
      depthwise: whether each channel has a kernel of its own.
      same_padding: whether to pad as TensorFlow's `SAME`, as in MobileNets, instead of
        symmetrically.
      activation: function applied last; None for a linear output.
      kernel_init: initializer of the kernel; None uses that of DeepLab's released code.
      form: how the layer computes, see `Form`.
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
      normalization: constants of both batch normalizations.
      kernel_size, stride, rate: kernel size, stride and atrous rate of the depthwise convolution;
        `rate` may be a pair for rows and columns.
      activation: function applied after both; None where the released Xception has none.
      depthwise_init, pointwise_init: initializers of the kernels.
      form: how the layer computes, see `Form`.
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
