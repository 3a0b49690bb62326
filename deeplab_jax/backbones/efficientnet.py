"""EfficientNet, EfficientNet-Lite, EfficientNetV2 and MobileNetV4 as in timm, at any output stride.

These networks consist of three kinds of units: convolutions, inverted residuals, and inverted
residuals in which one k×k convolution replaces the 1×1 expansion and the depthwise convolution.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.backbones.atrous import Unit, strides_to_rates
from deeplab_jax.backbones.efficientnet_networks import (
    CONV,
    FUSED,
    INVERTED,
    NETWORKS,
    RESIDUAL_CONV,
    Row,
    stem_channels,
    units,
)
from deeplab_jax.layers import ConvNorm, Form, Normalization, SqueezeExcitation, StochasticDepth


class Block(nn.Module):
    """One unit of a network: a convolution or an inverted residual.

    Attributes:
      row: kind, kernel sizes, expansion and number of output channels of the unit.
      width: number of input channels of the unit before any pruning.
      unit: stride and atrous rate of the unit.
      squeeze: whether an inverted residual has squeeze and excitation.
      drop_rate: probability of dropping the residual branch in training (stochastic depth).
      conv_norm: constructor of `ConvNorm` with defaults for the whole network: normalization,
        padding, activation and form.
    """

    row: Row
    width: int
    unit: Unit
    squeeze: bool
    drop_rate: float
    conv_norm: partial[ConvNorm]

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/s⌉, ⌈W/s⌉, row.features], where s is `unit.stride`."""
        row = self.row
        if row.kind in (CONV, RESIDUAL_CONV):
            outputs = self._convolve("conv", row.features, row.kernel_size)(inputs, train)
        else:
            expanded = self.width * row.expansion
            if row.kind == FUSED:
                hidden = self._convolve("expand", expanded, row.kernel_size)(inputs, train)
            else:
                hidden = self._inverted(inputs, expanded, train)
            outputs = self.conv_norm(row.features, kernel_size=1, activation=None, name="project")(
                hidden, train
            )
        residual = row.kind != CONV and self.unit.stride == 1 and self.width == row.features
        if residual:
            outputs = inputs + StochasticDepth(self.drop_rate)(outputs, train)
        return ops.constrain_rows(outputs)

    def _inverted(self, inputs: jax.Array, expanded: int, train: bool) -> jax.Array:
        row, hidden = self.row, inputs
        if row.first_kernel:
            stride = 1 if row.kernel_size else self.unit.stride
            hidden = self._depthwise("first_depthwise", row.first_kernel, stride, None)(
                hidden, train
            )
        if row.expansion > 1:
            hidden = self.conv_norm(expanded, kernel_size=1, name="expand")(hidden, train)
        if row.kernel_size:
            activation = self.conv_norm.keywords["activation"]
            hidden = self._depthwise("depthwise", row.kernel_size, self.unit.stride, activation)(
                hidden, train
            )
        if self.squeeze:
            hidden = SqueezeExcitation(
                # A quarter of the input channels of the unit, as in the released code.
                round(self.width / 4),
                activation=self.conv_norm.keywords["activation"],
                form=self.conv_norm.keywords["form"],
                name="squeeze_excitation",
            )(hidden)
        return hidden

    def _convolve(self, name: str, channels: int, kernel_size: int) -> nn.Module:
        stride, rate = self.unit
        return self.conv_norm(
            channels, kernel_size=kernel_size, stride=stride, rate=rate, name=name
        )

    def _depthwise(
        self,
        name: str,
        kernel_size: int,
        stride: int,
        activation: Callable[[jax.Array], jax.Array] | None,
    ) -> nn.Module:
        return self.conv_norm(
            # A depthwise convolution takes the number of channels from its inputs.
            self.width,
            kernel_size=kernel_size,
            stride=stride,
            rate=self.unit.rate,
            depthwise=True,
            activation=activation,
            # As in the released code.
            kernel_init=nn.initializers.normal((2 / kernel_size**2) ** 0.5),
            name=name,
        )


class EfficientNet(nn.Module):
    """Backbone EfficientNet, EfficientNet-Lite, EfficientNetV2 or MobileNetV4.

    Attributes:
      name_in_timm: name of the network, a key of `efficientnet_networks.NETWORKS`.
      output_stride: 4, 8, 16 or 32. Strides after the unit that reaches this output stride are
        replaced by atrous rates.
      rate_start: first unit with the atrous rate that replaces a stride: the unit that had the
        stride (`same_unit`) or the unit after it (`next_unit`). All later units have the rate, too.
      stochastic_depth: upper bound of the probability of dropping a residual branch in training;
        the probability rises linearly from 0 at the first unit, and stays below the bound.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.

    Source: arXiv 1905.11946, arXiv 2104.00298, arXiv 2404.10518.
    """

    name_in_timm: str
    output_stride: int = 16
    rate_start: str = "next_unit"
    stochastic_depth: float = 0.0
    normalization: Normalization = Normalization(0.9, 1e-5)
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        network = NETWORKS[self.name_in_timm]
        stages = units(network)
        strides = [2, *(row.stride for rows in stages for row in rows)]
        stem, *walk = strides_to_rates(
            strides,
            self.output_stride,
            self.name_in_timm,
            same_unit=self.rate_start == "same_unit",
        )
        conv_norm = partial(
            ConvNorm,
            normalization=self.normalization,
            same_padding=network.tensorflow,
            activation=network.activation,
            form=self.form,
        )
        width, done = stem_channels(network), 0
        hidden = conv_norm(width, stride=stem.stride, name="stem")(image, train)
        endpoints = {"stem": hidden}
        for stage, rows in enumerate(stages, start=1):
            for number, row in enumerate(rows, start=1):
                block = self.form.block(Block)(
                    row,
                    width,
                    walk[done],
                    network.squeeze and row.kind == INVERTED,
                    self.stochastic_depth * done / len(walk),
                    conv_norm,
                    name=f"stage_{stage}/block_{number}",
                )
                hidden, width, done = block(hidden, train), row.features, done + 1
            endpoints[f"stage_{stage}"] = hidden
        return endpoints | {"output": hidden}
