"""MobileNetV2 and MobileNetV3 without their image classifiers, at any output stride."""

from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.backbones.atrous import Feature, Unit, strides_to_rates
from deeplab_jax.layers import ConvNorm, Form, Normalization, SqueezeExcitation


def rounded_width(exact: float, divisor: int = 8) -> int:
    """Rounds a number of channels to the nearest multiple of a divisor, as in slim.

    The result is at least the divisor. If the nearest multiple is below 90 % of the number, the
    next larger multiple is returned.
    """
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


class InvertedResidual(nn.Module):
    """Inverted residual: 1×1 expansion → depthwise convolution → 1×1 projection, plus the input.

    Attributes:
      features: number of output channels.
      expanded: number of channels of the depthwise convolution; if the input has this number of
        channels, there is no expansion.
      stride, rate: stride and atrous rate of the depthwise convolution.
      residual: whether to add the input if it has as many channels as the output; False for units
        with a nominal stride of 2, even if that stride became a rate.
      conv_norm: constructor of `ConvNorm` in which the arguments that all convolutions of the unit
        share are already set.
      kernel_size: kernel size of the depthwise convolution.
      squeeze_excitation: whether squeeze and excitation follow the depthwise convolution.
      pad_first: whether to pad before the expansion instead of before the depthwise convolution.
    """

    features: int
    expanded: int
    stride: int
    rate: int
    residual: bool
    conv_norm: partial[ConvNorm]
    kernel_size: int = 3
    squeeze_excitation: bool = False
    pad_first: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the output of the unit, and the output of its depthwise convolution.

        Decoders use the output of the depthwise convolution.
        """
        hidden = inputs
        expands = self.expanded != inputs.shape[-1]
        before = self.rate * (self.kernel_size // 2) if self.pad_first and expands else None
        if expands:
            expand = self.conv_norm(self.expanded, kernel_size=1, pad=before, name="expand")
            hidden = expand(hidden, train)
        hidden = depthwise = self.conv_norm(
            self.expanded,
            kernel_size=self.kernel_size,
            stride=self.stride,
            rate=self.rate,
            depthwise=True,
            kernel_init=None,
            pad=None if before is None else 0,
            name="depthwise",
        )(hidden, train)
        if self.squeeze_excitation:
            form = self.conv_norm.keywords.get("form", Form())
            # arXiv 1905.02244, section 5.3.
            gate = SqueezeExcitation(
                rounded_width(hidden.shape[-1] / 4),
                gate=nn.hard_sigmoid,
                form=form,
                name="squeeze_excitation",
            )
            hidden = gate(hidden)
        outputs = self.conv_norm(self.features, kernel_size=1, activation=None, name="project")(
            hidden, train
        )
        if self.residual and outputs.shape[-1] == inputs.shape[-1]:
            outputs = outputs + inputs
        return ops.constrain_rows((outputs, depthwise))


CONVOLUTION_INIT = nn.initializers.truncated_normal(0.09)


class V2Layer(NamedTuple):
    """Configuration of one layer in table 2 of the MobileNetV2 paper.

    Attributes:
      features: number of output channels.
      stride: stride of the depthwise convolution.
      expansion: number of channels of the depthwise convolution, divided by the number of channels
        of the input.
    """

    features: int
    stride: int
    expansion: int


V2_LAYERS = (
    V2Layer(16, 1, 1),
    *(V2Layer(24, 2, 6), V2Layer(24, 1, 6)),
    *(V2Layer(32, 2, 6), V2Layer(32, 1, 6), V2Layer(32, 1, 6)),
    *(V2Layer(64, 2, 6), V2Layer(64, 1, 6), V2Layer(64, 1, 6), V2Layer(64, 1, 6)),
    *(V2Layer(96, 1, 6), V2Layer(96, 1, 6), V2Layer(96, 1, 6)),
    *(V2Layer(160, 2, 6), V2Layer(160, 1, 6), V2Layer(160, 1, 6)),
    V2Layer(320, 1, 6),
)
V2_BLOCKS = (Feature("layer_4", 24, 4), Feature("layer_7", 32, 8), Feature("layer_14", 96, 16))
V2_LOW_LEVEL = (
    Feature("layer_4/depthwise", 144, 4),
    Feature("layer_7/depthwise", 192, 8),
    Feature("layer_14/depthwise", 576, 16),
)
NORMALIZATION = Normalization(decay=0.997, epsilon=1e-3)


def scaled_width(features: int, depth_multiplier: float, width_divisor: int) -> int:
    """Returns the number of channels of a MobileNetV2 layer after scaling.

    `width_divisor=1` rounds down, for example 16 × 0.35 to 5. The released code rounds to the
    nearest whole number, here 6. This package keeps rounding down, because otherwise models that
    users have saved could not be loaded.

    Args:
      features: number of channels at depth multiplier 1.
      depth_multiplier: multiplier of the number of channels.
      width_divisor: 1: the product of `features` and `depth_multiplier` is rounded down, to at
        least 1; 8: it is rounded to a multiple of 8.
    """
    exact = features * depth_multiplier
    return max(1, int(exact)) if width_divisor == 1 else rounded_width(exact)


class MobileNetV2(nn.Module):
    """Backbone MobileNetV2 (arXiv 1801.04381).

    Attributes:
      output_stride: 4, 8, 16 or 32; later strides are replaced by atrous rates.
      depth_multiplier: multiplier of the number of channels of every layer.
      width_divisor: 1: scaled numbers of channels are rounded down, to at least 1; 8: they are
        rounded to multiples of 8, as in slim's image classifiers.
      stride_placement: kind of padding: symmetric for `torchvision`, TensorFlow's `SAME` for any
        other value. Only ResNets place strides by this field, hence its name.
      rate_start: first unit with the atrous rate that replaces a stride: the unit that had the
        stride (`same_unit`), the unit after it (`next_unit`) or the first unit of the next stage
        (`next_stage`). All later units have the rate, too. With `first_units`, only the unit that
        had the stride and the first unit of every later stage have the rate.
      last_convolution: whether the backbone ends with the 1×1 convolution to 1280 channels that
        the image classifier has before its pooling.
      pad_first_convolution: whether to pad the image before the first convolution.
      pad_before_expansion: whether to pad the input of each unit symmetrically, before its
        expansion.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.
    """

    output_stride: int = 16
    depth_multiplier: float = 1.0
    width_divisor: int = 1
    stride_placement: str = "slim"
    rate_start: str = "next_unit"
    last_convolution: bool = False
    pad_first_convolution: bool = True
    pad_before_expansion: bool = False
    normalization: Normalization = NORMALIZATION
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        units = self._units()
        conv_norm = partial(
            ConvNorm,
            normalization=self.normalization,
            same_padding=self.stride_placement != "torchvision",
            activation=nn.relu6,
            kernel_init=CONVOLUTION_INIT,
            form=self.form,
        )
        pad = None if self.pad_first_convolution else 0
        first = conv_norm(self._width(32), stride=units[0].stride, pad=pad, name="layer_1")
        hidden = first(image, train)
        endpoints = {"layer_1": hidden}
        for number, (layer, unit) in enumerate(zip(V2_LAYERS, units[1:], strict=True), start=2):
            name, width = f"layer_{number}", hidden.shape[-1]
            expanded = width if layer.expansion == 1 else rounded_width(width * layer.expansion)
            # Stride and rate of a unit are those of its depthwise convolution.
            hidden, endpoints[f"{name}/depthwise"] = self.form.block(InvertedResidual)(
                self._width(layer.features),
                expanded,
                unit.stride,
                unit.rate,
                layer.stride == 1,
                conv_norm,
                pad_first=self.pad_before_expansion,
                name=name,
            )(hidden, train)
            endpoints[name] = hidden
        if self.last_convolution:
            width = int(1280 * max(1.0, self.depth_multiplier))
            hidden = conv_norm(width, kernel_size=1, name="layer_19")(hidden, train)
        return endpoints | {"output": hidden}

    def _units(self) -> list[Unit]:
        """Returns the stride and rate of the first convolution and of every layer."""
        strides = (2, *(layer.stride for layer in V2_LAYERS))
        same_unit = self.rate_start in ("same_unit", "first_units")
        units = strides_to_rates(strides, self.output_stride, "mobilenet_v2", same_unit=same_unit)
        if self.rate_start in ("next_stage", "first_units"):
            for number in range(1, len(V2_LAYERS)):
                # The layers of a stage have equally many channels.
                if V2_LAYERS[number].features == V2_LAYERS[number - 1].features:
                    rate = units[number].rate if self.rate_start == "next_stage" else 1
                    units[number + 1] = Unit(units[number + 1].stride, rate)
        return units

    def _width(self, features: int) -> int:
        return scaled_width(features, self.depth_multiplier, self.width_divisor)


STEM_WIDTH = 16


class V3Layer(NamedTuple):
    """Configuration of one layer in table 1 or 2 of the MobileNetV3 paper.

    Attributes:
      expanded: number of channels of the depthwise convolution.
      features: number of output channels.
      kernel_size, stride: kernel size and stride of the depthwise convolution.
      squeeze: whether squeeze and excitation follow the depthwise convolution.
      activation: `HS` for hard swish, `RE` for ReLU.
    """

    expanded: int
    features: int
    kernel_size: int
    stride: int
    squeeze: bool
    activation: str


V3_LARGE = (
    V3Layer(16, 16, 3, 1, False, "RE"),
    V3Layer(64, 24, 3, 2, False, "RE"),
    V3Layer(72, 24, 3, 1, False, "RE"),
    V3Layer(72, 40, 5, 2, True, "RE"),
    *[V3Layer(120, 40, 5, 1, True, "RE")] * 2,
    V3Layer(240, 80, 3, 2, False, "HS"),
    V3Layer(200, 80, 3, 1, False, "HS"),
    *[V3Layer(184, 80, 3, 1, False, "HS")] * 2,
    V3Layer(480, 112, 3, 1, True, "HS"),
    V3Layer(672, 112, 3, 1, True, "HS"),
)
V3_SMALL = (
    V3Layer(16, 16, 3, 2, True, "RE"),
    V3Layer(72, 24, 3, 2, False, "RE"),
    V3Layer(88, 24, 3, 1, False, "RE"),
    V3Layer(96, 40, 5, 2, True, "HS"),
    *[V3Layer(240, 40, 5, 1, True, "HS")] * 2,
    V3Layer(120, 48, 5, 1, True, "HS"),
    V3Layer(144, 48, 5, 1, True, "HS"),
)
# (expanded, features) of the last three units, and the number of channels of the 1×1 convolution
# after them.
V3_ENDS = {
    "large": ((672, 160), (960, 160), (960, 160), 960),
    "large_seg": ((336, 80), (480, 80), (480, 80), 480),
    "small": ((288, 96), (576, 96), (576, 96), 576),
    "small_seg": ((144, 48), (288, 48), (288, 48), 288),
}
V3_LOW_LEVEL = {
    "large": (
        Feature("layer_4/depthwise", 72, 4),
        Feature("layer_7/depthwise", 120, 8),
        Feature("layer_13/depthwise", 672, 16),
    ),
    "small": (
        Feature("layer_2/depthwise", 16, 4),
        Feature("layer_4/depthwise", 88, 8),
        Feature("layer_9/depthwise", 144, 16),
    ),
}
# Endpoints that torchvision attaches the auxiliary head to.
AUXILIARY = {"large": Feature("layer_5", 40, 8), "small": Feature("layer_5", 40, 16)}


def layers(size: str) -> tuple[V3Layer, ...]:
    """Returns the layers of MobileNetV3 `large`, `small`, `large_seg` or `small_seg`."""
    ends = [
        V3Layer(expanded, features, 5, stride, True, "HS")
        for (expanded, features), stride in zip(V3_ENDS[size][:3], (2, 1, 1), strict=True)
    ]
    return (*(V3_LARGE if size.startswith("large") else V3_SMALL), *ends)


class MobileNetV3(nn.Module):
    """Backbone MobileNetV3 (arXiv 1905.02244).

    Attributes:
      size: `large`, `small`, `large_seg` or `small_seg`; the last two are those released for
        DeepLab.
      output_stride: 4, 8, 16 or 32; later strides are replaced by atrous rates.
      depth_multiplier: multiplier of the number of channels of every layer. The product is rounded
        to a multiple of 8.
      stride_placement: padding, and first unit with the rate that replaces a stride.
        `torchvision`: symmetric padding, and the unit that had the stride. Any other value:
        TensorFlow's `SAME`, and the next unit, as in the released code.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.
    """

    size: str
    output_stride: int = 16
    depth_multiplier: float = 1.0
    stride_placement: str = "slim"
    normalization: Normalization = NORMALIZATION
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        rows = layers(self.size)
        torchvision = self.stride_placement == "torchvision"
        walk = strides_to_rates(
            (2, *(row.stride for row in rows)), self.output_stride, f"mobilenet_v3_{self.size}"
        )
        conv_norm = partial(
            ConvNorm,
            normalization=self.normalization,
            same_padding=not torchvision,
            activation=nn.hard_swish,
            kernel_init=CONVOLUTION_INIT,
            form=self.form,
        )
        hidden = conv_norm(self._width(STEM_WIDTH), stride=walk[0].stride, name="layer_1")(
            image, train
        )
        endpoints, nominal_width = {"layer_1": hidden}, STEM_WIDTH
        for number, (row, unit) in enumerate(zip(rows, walk[1:], strict=True), start=2):
            name = f"layer_{number}"
            lost_stride = row.stride // unit.stride if torchvision else 1
            activation = nn.hard_swish if row.activation == "HS" else nn.relu
            hidden, endpoints[f"{name}/depthwise"] = self.form.block(InvertedResidual)(
                self._width(row.features),
                rounded_width(hidden.shape[-1] * row.expanded / nominal_width),
                unit.stride,
                unit.rate * lost_stride,
                row.stride == 1,
                partial(conv_norm, activation=activation),
                kernel_size=row.kernel_size,
                squeeze_excitation=row.squeeze,
                name=name,
            )(hidden, train)
            endpoints[name], nominal_width = hidden, row.features
        last = conv_norm(
            self._width(V3_ENDS[self.size][3]), kernel_size=1, name=f"layer_{len(rows) + 2}"
        )
        return endpoints | {"output": last(hidden, train)}

    def _width(self, features: int) -> int:
        if self.depth_multiplier == 1:
            return features
        return rounded_width(features * self.depth_multiplier)
