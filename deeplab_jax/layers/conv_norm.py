"""Convolution with batch normalization and activation, and settings common to all layers."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.layers.batch_norm import (
    GroupedBatchNorm,
    ShardedBatchNorm,
    refuse_single_values,
)
from deeplab_jax.layers.integers import convolve_in_integers, rounded_inputs, rounded_kernel


@dataclasses.dataclass(frozen=True)
class Form:
    """Settings that all layers of a network share. Modules pass a `Form` to their submodules.

    Attributes:
      dtype: dtype of the computation. Parameters and statistics are float64 if `dtype` is float64,
        else float32.
      kind: form of convolution and batch normalization: `trained` (both are separate layers),
        `folded` (batch normalization is folded into kernels and biases), `int8` (folded, and
        convolutions compute in 8-bit integers) or `rounded` (as `trained`, but kernels and inputs
        of convolutions are rounded to 8-bit values, for quantization-aware training).
      widths: (layer path, number of output channels) of the layers whose number of output channels
        differs from that of the architecture, for example because they were pruned.
      remat: layers recomputed in the backward pass (gradient checkpointing, arXiv 1604.06174):
        `none`, `norm` (normalizations and activations) or `block` (all layers inside the repeated
        units of the backbone).
    """

    dtype: jnp.dtype = jnp.float32
    kind: str = "trained"
    widths: tuple[tuple[str, int], ...] = ()
    remat: str = "none"

    @property
    def parameter_dtype(self) -> jnp.dtype:
        """Dtype of the parameters and the batch statistics."""
        return jnp.promote_types(self.dtype, jnp.float32)

    def output_channels(self, layer: nn.Module) -> int:
        """Returns the number of output channels of a layer.

        It is the number in `Form.widths` for the path of the layer. If `Form.widths` does not
        contain the path, it is `layer.features`.

        Args:
          layer: convolution that is not depthwise, as a bound Flax module.
        """
        return dict(self.widths).get("/".join(layer.path), layer.features)

    def block(self, unit: type[nn.Module]) -> type[nn.Module]:
        """Returns the class `unit`, with gradient checkpointing if `Form.remat` is `block`.

        Args:
          unit: class of a unit of the backbone; its `__call__` takes (inputs, train).
        """
        return nn.remat(unit, static_argnums=(2,)) if self.remat == "block" else unit


def check_widths(form: Form, params: Mapping[str, Any]) -> None:
    """Checks that every layer in `Form.widths` exists and has the given number of output channels.

    Args:
      form: settings of a network.
      params: parameters of the network.

    Raises:
      DeepLabError: a layer has another number of output channels, or does not exist. In the second
        case, the message suggests the existing path with the most similar name.
    """
    flat = traverse_util.flatten_dict(params) if form.widths else {}
    channels = {"/".join(path[:-1]): flat[path].shape[-1] for path in flat if path[-1] == "kernel"}
    for path, width in form.widths:
        if path not in channels:
            raise unknown_name("layer (in the keyword `widths`)", path, sorted(channels))
        if channels[path] != width:
            raise DeepLabError(
                f"widths: the layer {path!r} must have {channels[path]} output channels in this "
                f"network, got {width}"
            )


Initializer = Callable[..., jax.Array]

# As in slim. A fan-out initializer would count k·k·C outputs, but a depthwise kernel has k·k.
DEPTHWISE_INIT = nn.initializers.truncated_normal(0.33)
CONVOLUTION_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Hyperparameters of batch normalization.

    Attributes:
      decay: decay of the moving averages per training step (`momentum` in Flax).
      epsilon: constant added to the variance.
      frozen: whether training normalizes by the moving averages and does not update them (DeepLab
        v3, section 4; DeepLab v2 as released).
      group: number of images that are normalized together in training; 0: the whole batch, across
        devices.
    """

    decay: float
    epsilon: float
    frozen: bool = False
    group: int = 0


class Bias(nn.Module):
    """Bias of a folded convolution, which replaces its batch normalization."""

    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Adds the bias to an array [N, H, W, C]."""
        shape = inputs.shape[-1:]
        bias = self.param("bias", nn.initializers.zeros, shape, self.form.parameter_dtype)
        return inputs + bias.astype(inputs.dtype)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    """Returns whether an operation is a convolution or a matrix product.

    With this function as its policy, `nn.remat` stores the results of these operations for the
    backward pass, and recomputes all others.
    """
    return primitive.name in ("conv_general_dilated", "dot_general")


class ConvNorm(nn.Module):
    """Convolution without bias → batch normalization → activation.

    Attributes:
      features: number of output channels. It has no effect on a depthwise convolution, which has as
        many output channels as input channels.
      normalization: hyperparameters of batch normalization; None: neither normalization nor bias.
      kernel_size, stride, rate: kernel size, stride and atrous rate of the convolution, in pixels;
        `rate` may be a pair (along H, along W).
      depthwise: whether the convolution is depthwise.
      groups: number of channel groups of a convolution that is not depthwise.
      same_padding: whether to pad like TensorFlow's `SAME` (MobileNets) instead of symmetrically.
      pad: number of zeros on every side of the input; None: the number that keeps the size at
        stride 1.
      activation: activation function; None for a linear output.
      kernel_init: initializer of the kernel; None: as in the released DeepLab code.
      form: settings common to all layers, see `Form`.
    """

    features: int
    normalization: Normalization | None
    kernel_size: int = 3
    stride: int = 1
    rate: ops.Rate = 1
    depthwise: bool = False
    groups: int = 1
    same_padding: bool = False
    pad: int | None = None
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    kernel_init: Initializer | None = None
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, D], with D output channels.

        If `pad` is set, the height and width of the result depend on this padding instead.

        Raises:
          DeepLabError: in training, batch normalization would normalize a single value per channel.
        """
        if self.form.remat == "norm" and not self.is_initializing():
            again = nn.remat(ConvNorm._normalized, policy=_is_product, static_argnums=(2,))
            return again(self, inputs, train)
        return self._normalized(inputs, train)

    def padding(self, size: ops.Size) -> ops.Padding:
        """Returns the padding for an input of `size` (H, W)."""
        if self.pad is not None:
            return ((self.pad, self.pad),) * 2
        if self.same_padding:
            return ops.same_padding(size, self.kernel_size, self.stride, self.rate)
        return ops.symmetric_padding(self.kernel_size, self.rate)

    def _normalized(self, inputs: jax.Array, train: bool) -> jax.Array:
        if self.form.kind == "int8":
            outputs = convolve_in_integers(self, inputs).astype(self.form.dtype)
        else:
            outputs = self._convolve(inputs, train)
            if self.normalization is not None:
                outputs = self._norm(self.normalization, train)(outputs)
        outputs = outputs if self.activation is None else self.activation(outputs)
        return ops.constrain_rows(outputs)

    def _norm(self, constants: Normalization, train: bool) -> nn.Module:
        if self.form.kind == "folded":
            return Bias(self.form, name="norm")
        make: Callable[..., nn.Module] = ShardedBatchNorm if ops.is_sharded() else nn.BatchNorm
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
        default_init = DEPTHWISE_INIT if self.depthwise else CONVOLUTION_INIT
        outputs = convolve(self, inputs, self.kernel_init or default_init, self.groups)
        constants = self.normalization
        # Folded layers receive `train` for MC dropout.
        normalizes = train and self.form.kind != "folded" and not self.is_initializing()
        if normalizes and constants and not constants.frozen:
            layer = "/".join(self.path) or "a layer"
            refuse_single_values(outputs.shape, constants.group, layer)
        return outputs


def convolve(
    layer: nn.Module, inputs: jax.Array, kernel_init: Initializer, groups: int = 1
) -> jax.Array:
    """Computes the output of a convolution layer before bias and normalization.

    Args:
      layer: `ConvNorm` or `Convolution` whose compact method calls this function.
      inputs: floating point [N, H, W, C].
      kernel_init: initializer of the kernel.
      groups: number of channel groups of a convolution that is not depthwise.

    Returns:
      [N, H', W', D] in the computation dtype of the layer (`layer.form.dtype`).
    """
    form, depth, features = layer.form, 1, inputs.shape[-1]
    if not layer.depthwise:
        depth, features = features // groups, form.output_channels(layer)
    shape = (layer.kernel_size, layer.kernel_size, depth, features)
    kernel = layer.param("kernel", kernel_init, shape, form.parameter_dtype)
    if form.kind == "rounded":
        inputs, kernel = rounded_inputs(inputs), rounded_kernel(kernel)
    convolution: Callable[..., jax.Array] = partial(ops.convolution, groups=groups)
    if layer.depthwise:
        convolution = ops.depthwise_convolution
    return convolution(
        inputs.astype(form.dtype),
        kernel.astype(form.dtype),
        stride=layer.stride,
        rate=layer.rate,
        padding=layer.padding(inputs.shape[1:3]),
    )


POINTWISE_INIT = nn.initializers.truncated_normal(0.06)


class SeparableConvNorm(nn.Module):
    """Atrous separable convolution (DeepLab v3+, section 3.1).

    Depthwise convolution → batch normalization → activation → 1×1 convolution → batch normalization
    → activation.

    Attributes:
      features: number of output channels.
      normalization: hyperparameters of both batch normalizations.
      kernel_size, stride, rate: kernel size, stride and atrous rate of the depthwise convolution,
        in pixels; `rate` may be a pair (along H, along W).
      activation: activation function after each batch normalization; None: no activation.
      inner_norm: whether normalization and activation also follow the depthwise convolution. They
        always follow the 1×1 convolution.
      depthwise_init, pointwise_init: initializers of the two kernels.
      form: settings common to all layers, see `Form`.
    """

    features: int
    normalization: Normalization
    kernel_size: int = 3
    stride: int = 1
    rate: ops.Rate = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    inner_norm: bool = True
    depthwise_init: Initializer = DEPTHWISE_INIT
    pointwise_init: Initializer = POINTWISE_INIT
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features]."""
        outputs = ConvNorm(
            inputs.shape[-1],
            self.normalization if self.inner_norm else None,
            kernel_size=self.kernel_size,
            stride=self.stride,
            rate=self.rate,
            depthwise=True,
            activation=self.activation if self.inner_norm else None,
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
