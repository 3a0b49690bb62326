"""MobileNetV3 large and small, and their `seg` forms with the last layers halved."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.backbones.atrous import strides_to_rates
from deeplab_jax.backbones.features import Feature
from deeplab_jax.backbones.inverted_residual import InvertedResidual, rounded_width
from deeplab_jax.layers import ConvNorm, Normalization

CONVOLUTION_INIT = nn.initializers.truncated_normal(0.09)
NORMALIZATION = Normalization(decay=0.997, epsilon=1e-3)
STEM_WIDTH = 16


class Layer(NamedTuple):
    """A row of the MobileNetV3 paper's Tables 1 and 2.

    Attributes:
      expanded: channels of the depthwise convolution.
      features: output channels.
      kernel_size, stride: of the depthwise convolution.
      squeeze: whether squeeze and excitation follow it.
      activation: hard swish (`HS`), else ReLU (`RE`).
    """

    expanded: int
    features: int
    kernel_size: int
    stride: int
    squeeze: bool
    activation: str


LARGE = (
    Layer(16, 16, 3, 1, False, "RE"),
    Layer(64, 24, 3, 2, False, "RE"),
    Layer(72, 24, 3, 1, False, "RE"),
    Layer(72, 40, 5, 2, True, "RE"),
    *[Layer(120, 40, 5, 1, True, "RE")] * 2,
    Layer(240, 80, 3, 2, False, "HS"),
    Layer(200, 80, 3, 1, False, "HS"),
    *[Layer(184, 80, 3, 1, False, "HS")] * 2,
    Layer(480, 112, 3, 1, True, "HS"),
    Layer(672, 112, 3, 1, True, "HS"),
)
SMALL = (
    Layer(16, 16, 3, 2, True, "RE"),
    Layer(72, 24, 3, 2, False, "RE"),
    Layer(88, 24, 3, 1, False, "RE"),
    Layer(96, 40, 5, 2, True, "HS"),
    *[Layer(240, 40, 5, 1, True, "HS")] * 2,
    Layer(120, 48, 5, 1, True, "HS"),
    Layer(144, 48, 5, 1, True, "HS"),
)
# The last three units, and the channels of the 1×1 convolution that ends the network.
ENDS = {
    "large": ((672, 160), (960, 160), (960, 160), 960),
    "large_seg": ((336, 80), (480, 80), (480, 80), 480),
    "small": ((288, 96), (576, 96), (576, 96), 576),
    "small_seg": ((144, 48), (288, 48), (288, 48), 288),
}
LOW_LEVEL = {
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
# Where torchvision's auxiliary head is attached.
AUXILIARY = {"large": Feature("layer_5", 40, 8), "small": Feature("layer_5", 40, 16)}


def layers(form: str) -> tuple[Layer, ...]:
    """Returns the units of `large`, `small`, `large_seg` or `small_seg`."""
    ends = [
        Layer(expanded, features, 5, stride, True, "HS")
        for (expanded, features), stride in zip(ENDS[form][:3], (2, 1, 1), strict=True)
    ]
    return (*(LARGE if form.startswith("large") else SMALL), *ends)


class MobileNetV3(nn.Module):
    """MobileNetV3's features (arXiv 1905.02244; `seg` forms as released for DeepLab).

    Attributes:
      form: `large`, `small`, `large_seg` or `small_seg`.
      output_stride: 4 to 32; strides beyond it become atrous rates.
      depth_multiplier: scales every width; widths are rounded to multiples of 8.
      stride_placement: `torchvision` pads symmetrically and lets the unit that lost its stride run
        at the new rate already; every other value is the released code's convention.
      normalization: constants of batch normalisation.
      dtype: of the computation.
    """

    form: str
    output_stride: int = 16
    depth_multiplier: float = 1.0
    stride_placement: str = "slim"
    normalization: Normalization = NORMALIZATION
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalised image [N, H, W, C] to endpoints by name; the last is `output`."""
        rows = layers(self.form)
        torchvision = self.stride_placement == "torchvision"
        walk = strides_to_rates(
            (2, *(row.stride for row in rows)), self.output_stride, f"mobilenet_v3_{self.form}"
        )
        conv_norm = partial(
            ConvNorm,
            normalization=self.normalization,
            same_padding=not torchvision,
            activation=nn.hard_swish,
            kernel_init=CONVOLUTION_INIT,
            dtype=self.dtype,
        )
        hidden = conv_norm(self._width(STEM_WIDTH), stride=walk[0].stride, name="layer_1")(
            image, train
        )
        endpoints, nominal_width = {"layer_1": hidden}, STEM_WIDTH
        for number, (row, unit) in enumerate(zip(rows, walk[1:], strict=True), start=2):
            name = f"layer_{number}"
            lost_stride = row.stride // unit.stride if torchvision else 1
            activation = nn.hard_swish if row.activation == "HS" else nn.relu
            hidden, endpoints[f"{name}/depthwise"] = InvertedResidual(
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
            self._width(ENDS[self.form][3]), kernel_size=1, name=f"layer_{len(rows) + 2}"
        )
        return endpoints | {"output": last(hidden, train)}

    def _width(self, features: int) -> int:
        if self.depth_multiplier == 1:
            return features
        return rounded_width(features * self.depth_multiplier)
