"""ConvNeXt and ConvNeXt V2, as in timm, at any output stride."""

from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.backbones.atrous import Feature, Unit, strides_to_rates
from deeplab_jax.layers import (
    Form,
    GlobalResponseNorm,
    LayerNorm,
    StochasticDepth,
    depth_rates,
)
from deeplab_jax.layers.convolution import Convolution

KERNEL_INIT = nn.initializers.truncated_normal(0.02)
LAYER_SCALE = 1e-6


class Size(NamedTuple):
    """Configuration of a ConvNeXt of one size.

    Attributes:
      depths: number of blocks in each of the four stages.
      widths: number of channels of each stage.
      version: 1 (layer scale) or 2 (global response normalization).
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    version: int = 1


def _widths(first: int) -> tuple[int, int, int, int]:
    return first, 2 * first, 4 * first, 8 * first


# arXiv 2201.03545, section 3, and arXiv 2301.00808, table 15. Sizes smaller than tiny are timm's.
_DEPTHS_AND_WIDTHS = {
    "atto": ((2, 2, 6, 2), _widths(40)),
    "femto": ((2, 2, 6, 2), _widths(48)),
    "pico": ((2, 2, 6, 2), _widths(64)),
    "nano": ((2, 2, 8, 2), _widths(80)),
    "tiny": ((3, 3, 9, 3), _widths(96)),
    "small": ((3, 3, 27, 3), _widths(96)),
    "base": ((3, 3, 27, 3), _widths(128)),
}
SIZES = {
    f"convnext{version}_{name}": Size(*size, number)
    for version, number in (("", 1), ("v2", 2))
    for name, size in _DEPTHS_AND_WIDTHS.items()
    if (version, name) != ("v2", "small")
}


def features(size: Size) -> tuple[Feature, ...]:
    """Describes the output feature map of each of the four stages."""
    return tuple(
        Feature(f"stage_{stage}", width, 2 ** (stage + 1))
        for stage, width in enumerate(size.widths, start=1)
    )


class PatchConvolution(Convolution):
    """Convolution of patches that do not overlap: the kernel is as large as the stride.

    To reach a small output stride, some layers have stride 1 and an atrous rate instead of a larger
    stride, and their output has the size of their input. Their input is padded by `rate` pixels
    along each axis, half of them on each side. If the rate is odd, the bottom and the right receive
    one pixel more than the top and the left, as in timm.
    """

    def padding(self, size: ops.Size) -> ops.Padding:
        """Returns the padding, which is 0 unless an atrous rate replaces the stride.

        Without padding, rows at the bottom and columns at the right that do not fill a patch are
        ignored. An input that is smaller than a patch is padded to one patch, so that the output is
        not empty.
        """
        if self.stride > 1:
            # Sides may be symbolic dimensions of `jax.export`, which are larger than a patch.
            bottom, right = (
                max(0, self.kernel_size - side) if isinstance(side, int) else 0 for side in size
            )
            return (0, bottom), (0, right)
        return ops.symmetric_padding(self.kernel_size, self.rate)


class Block(nn.Module):
    """Depthwise 7×7 → layer normalization → 1×1 → GELU → 1×1, plus the input.

    Attributes:
      version: 1 (layer scale) or 2 (global response normalization).
      rate: atrous rate of the depthwise convolution.
      drop_rate: probability of dropping the residual branch in training (stochastic depth).
      form: settings common to all layers, see `layers.Form`.

    Source: arXiv 2201.03545, figure 4; version 2: arXiv 2301.00808, figure 5.
    """

    version: int
    rate: int
    drop_rate: float
    form: Form

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Computes the block for inputs [N, H, W, C]; the result has the same shape."""
        channels, form = inputs.shape[-1], self.form
        convolution = partial(Convolution, kernel_init=KERNEL_INIT, form=form)
        depthwise = convolution(
            channels, 7, rate=self.rate, depthwise=True, activation=None, name="depthwise"
        )
        hidden = LayerNorm(form=form, name="norm")(depthwise(inputs))
        hidden = convolution(4 * channels, 1, activation=ops.gelu, name="expand")(hidden)
        if self.version == 2:
            hidden = GlobalResponseNorm(form, name="response_norm")(hidden)
        hidden = convolution(channels, 1, activation=None, name="project")(hidden)
        if self.version == 1:
            initial, dtype = nn.initializers.constant(LAYER_SCALE), form.parameter_dtype
            scale = self.param("layer_scale", initial, (channels,), dtype)
            hidden = hidden * scale.astype(hidden.dtype)
        return ops.constrain_rows(inputs + StochasticDepth(self.drop_rate)(hidden, train))


class ConvNeXt(nn.Module):
    """Backbone ConvNeXt (arXiv 2201.03545) or ConvNeXt V2 (arXiv 2301.00808).

    Attributes:
      name_in_timm: name of the network in timm, a key of `SIZES`.
      output_stride: ratio of image size to the size of the output: 4, 8, 16 or 32. Once the strides
        have reached this ratio, atrous rates replace the strides of the following layers.
      stochastic_depth: probability of dropping the residual branch of the last block in training;
        it rises linearly from 0 at the first block.
      form: settings common to all layers, see `layers.Form`.
    """

    name_in_timm: str
    output_stride: int = 16
    stochastic_depth: float = 0.0
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        size = SIZES[self.name_in_timm]
        stem, *units = self._units(size)
        rates = iter(depth_rates(self.stochastic_depth, sum(size.depths)))
        hidden = self._patches(size.widths[0], stem)(image)
        hidden = LayerNorm(form=self.form, name="stem/norm")(hidden)
        endpoints = {"stem": hidden}
        for stage, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True), start=1):
            name = f"stage_{stage}"
            if stage > 1:
                hidden = LayerNorm(form=self.form, name=f"{name}/downsample/norm")(hidden)
                hidden = self._patches(width, units.pop(0), f"{name}/downsample")(hidden)
            for number in range(1, depth + 1):
                block = self.form.block(Block)(
                    size.version,
                    units.pop(0).rate,
                    next(rates),
                    self.form,
                    name=f"{name}/block_{number}",
                )
                hidden = block(hidden, train)
            endpoints[name] = hidden
        return endpoints | {"output": hidden}

    def _units(self, size: Size) -> list[Unit]:
        """Returns stride and rate of each convolution above 1×1, in order of computation.

        These convolutions are the stem, the downsampling layers and the depthwise convolutions.
        """
        strides = [4, *[1] * size.depths[0]]
        for depth in size.depths[1:]:
            strides += [2, *[1] * depth]
        return strides_to_rates(strides, self.output_stride, self.name_in_timm)

    def _patches(self, width: int, unit: Unit, name: str = "stem") -> nn.Module:
        return PatchConvolution(
            width,
            4 if name == "stem" else 2,
            stride=unit.stride,
            rate=unit.rate,
            activation=None,
            kernel_init=KERNEL_INIT,
            form=self.form,
            name=f"{name}/patches",
        )
