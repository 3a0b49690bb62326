"""MobileNetV2 as DeepLab uses it: layers 1 to 18, without the 1280-channel layer."""

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


class Layer(NamedTuple):
    """A row of the MobileNetV2 paper's Table 2, one layer of it."""

    features: int
    stride: int
    expansion: int


LAYERS = (
    Layer(16, 1, 1),
    *(Layer(24, 2, 6), Layer(24, 1, 6)),
    *(Layer(32, 2, 6), Layer(32, 1, 6), Layer(32, 1, 6)),
    *(Layer(64, 2, 6), Layer(64, 1, 6), Layer(64, 1, 6), Layer(64, 1, 6)),
    *(Layer(96, 1, 6), Layer(96, 1, 6), Layer(96, 1, 6)),
    *(Layer(160, 2, 6), Layer(160, 1, 6), Layer(160, 1, 6)),
    Layer(320, 1, 6),
)
LOW_LEVEL = (
    Feature("layer_4/depthwise", 144, 4),
    Feature("layer_7/depthwise", 192, 8),
    Feature("layer_14/depthwise", 576, 16),
)
NORMALIZATION = Normalization(decay=0.997, epsilon=1e-3)


def scaled_width(features: int, depth_multiplier: float, width_divisor: int) -> int:
    """Returns a layer's width; see the attributes of MobileNetV2."""
    exact = features * depth_multiplier
    return max(1, int(exact)) if width_divisor == 1 else rounded_width(exact)


class MobileNetV2(nn.Module):
    """MobileNetV2's features (arXiv 1801.04381).

    Attributes:
      output_stride: 4 to 32; strides beyond it become atrous rates.
      depth_multiplier: scales every width.
      width_divisor: 1: scaled widths are floored, at least 1; 8: they are rounded to its multiples,
        as in slim's classifiers.
      stride_placement: `torchvision` pads symmetrically; every other value is TensorFlow's `SAME`.
      normalization: constants of batch normalisation.
      dtype: of the computation.
    """

    output_stride: int = 16
    depth_multiplier: float = 1.0
    width_divisor: int = 1
    stride_placement: str = "slim"
    normalization: Normalization = NORMALIZATION
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalised image [N, H, W, C] to endpoints by name; the last is `output`."""
        strides = (2, *(layer.stride for layer in LAYERS))
        units = strides_to_rates(strides, self.output_stride, "mobilenet_v2")
        conv_norm = partial(
            ConvNorm,
            normalization=self.normalization,
            same_padding=self.stride_placement != "torchvision",
            activation=nn.relu6,
            kernel_init=CONVOLUTION_INIT,
            dtype=self.dtype,
        )
        hidden = conv_norm(self._width(32), stride=units[0].stride, name="layer_1")(image, train)
        endpoints = {"layer_1": hidden}
        for number, (layer, unit) in enumerate(zip(LAYERS, units[1:], strict=True), start=2):
            name, width = f"layer_{number}", hidden.shape[-1]
            expanded = width if layer.expansion == 1 else rounded_width(width * layer.expansion)
            # Each layer is a unit of its own: the rate of the walk is the depthwise one.
            hidden, endpoints[f"{name}/depthwise"] = InvertedResidual(
                self._width(layer.features),
                expanded,
                unit.stride,
                unit.rate,
                layer.stride == 1,
                conv_norm,
                name=name,
            )(hidden, train)
            endpoints[name] = hidden
        return endpoints | {"output": hidden}

    def _width(self, features: int) -> int:
        return scaled_width(features, self.depth_multiplier, self.width_divisor)
