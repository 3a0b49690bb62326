"""RegNetY, as in timm, at an output stride of 4, 8, 16 or 32."""

from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from deeplab_jax.backbones.atrous import Feature, Unit, strides_to_rates
from deeplab_jax.backbones.resnet import PYTORCH_NORMALIZATION, ResidualUnit
from deeplab_jax.layers import ConvNorm, Form, Normalization, depth_rates

STEM_WIDTH = 32


class Size(NamedTuple):
    """Configuration of a RegNetY of one size (arXiv 2003.13678, table 4).

    Attributes:
      depths: number of blocks in each of the four stages.
      widths: number of channels of each stage.
      group_width: number of channels of each group of the 3×3 convolutions.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    group_width: int


SIZES = {
    "regnety_002": Size((1, 1, 4, 7), (24, 56, 152, 368), 8),
    "regnety_008": Size((1, 3, 8, 2), (64, 128, 320, 768), 16),
    "regnety_016": Size((2, 6, 17, 2), (48, 120, 336, 888), 24),
    "regnety_040": Size((2, 6, 12, 2), (128, 192, 512, 1088), 64),
    "regnety_080": Size((2, 4, 10, 1), (168, 448, 896, 2016), 56),
    "regnety_160": Size((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
}


def features(size: Size) -> tuple[Feature, ...]:
    """Returns the endpoints of the four stages."""
    return tuple(
        Feature(f"stage_{stage}", width, 2 ** (stage + 1))
        for stage, width in enumerate(size.widths, start=1)
    )


class RegNet(nn.Module):
    """Backbone RegNetY (arXiv 2003.13678, section 5).

    Its blocks are residual bottleneck units with squeeze and excitation. All three convolutions of
    a unit have the same number of output channels.

    Attributes:
      name_in_timm: name of the network in timm, a key of `SIZES`.
      output_stride: 4, 8, 16 or 32. Strides after the layer that reaches this output stride are
        replaced by atrous rates.
      stochastic_depth: probability of dropping the residual branch of the last block in training;
        it rises linearly from 0 at the first block.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.
    """

    name_in_timm: str
    output_stride: int = 16
    stochastic_depth: float = 0.0
    normalization: Normalization = PYTORCH_NORMALIZATION
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        size = SIZES[self.name_in_timm]
        strides = [2, *(stride for depth in size.depths for stride in (2, *[1] * (depth - 1)))]
        _, *walk = strides_to_rates(strides, self.output_stride, self.name_in_timm)
        units = iter(zip(walk, depth_rates(self.stochastic_depth, len(walk)), strict=True))
        conv_norm = partial(ConvNorm, normalization=self.normalization, form=self.form)
        hidden = conv_norm(STEM_WIDTH, stride=2, name="stem")(image, train)
        endpoints = {"stem": hidden}
        for stage, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True), start=1):
            for number in range(1, depth + 1):
                unit, rate = next(units)
                block = self.form.block(ResidualUnit)(
                    width,
                    width,
                    (Unit(1, 1), unit, Unit(1, 1)),
                    conv_norm,
                    groups=width // size.group_width,
                    squeezed=round(hidden.shape[-1] / 4),
                    drop_rate=rate,
                    name=f"stage_{stage}/block_{number}",
                )
                hidden, _ = block(hidden, train)
            endpoints[f"stage_{stage}"] = hidden
        return endpoints | {"output": hidden}
