"""ResNet v1, with the stem and the stride placement of slim, Caffe, torchvision or timm."""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.backbones.atrous import Feature, Unit, strides_to_rates
from deeplab_jax.layers import (
    ConvNorm,
    Form,
    Normalization,
    SqueezeExcitation,
    StochasticDepth,
    depth_rates,
)

# Number of channels inside the units of block1 to block7. block5 to block7 are those of DeepLab
# v3's cascade and repeat block4.
WIDTHS = (64, 128, 256, 512, 512, 512, 512)
NORMALIZATION = Normalization(decay=0.95, epsilon=1e-5)


class Depth(NamedTuple):
    """Configuration of a ResNet of one depth.

    Attributes:
      block_sizes: number of units in each of the four blocks.
      bottleneck: whether a unit has three convolutions (1×1, 3×3, 1×1) instead of two (3×3, 3×3).
      beta_width: multiplier of the number of channels of the beta stem (three 3×3 convolutions).
    """

    block_sizes: tuple[int, int, int, int]
    bottleneck: bool = True
    beta_width: float = 1.0

    @property
    def expansion(self) -> int:
        """Ratio of output channels to inner channels of a residual unit."""
        return 4 if self.bottleneck else 1

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Kernel sizes of the convolutions in a residual unit."""
        return (1, 3, 1) if self.bottleneck else (3, 3)

    @property
    def last_convolution(self) -> str:
        """Name of the convolution in a residual unit whose output is added to the shortcut."""
        return "conv3" if self.bottleneck else "conv2"


DEPTHS = {
    18: Depth((2, 2, 2, 2), bottleneck=False, beta_width=0.25),
    34: Depth((3, 4, 6, 3), bottleneck=False),
    50: Depth((3, 4, 6, 3)),
    101: Depth((3, 4, 23, 3)),
    152: Depth((3, 8, 36, 3)),
}
# Depths with the stems and the stride placements of slim and Caffe.
OWN_DEPTHS = (18, 50, 101)


class Variant(NamedTuple):
    """Differences between a variant of ResNet and the original ResNet of the same depth.

    Attributes:
      stem_width: number of channels of the first two convolutions in a stem of three 3×3
        convolutions; the third has twice as many. 0: `ResNet.beta_stem` determines the stem.
      average_shortcut: whether shortcuts with a stride average 2×2 pixels before a 1×1 convolution
        at stride 1 (ResNet-D, arXiv 1812.01187, section 4.2).
      groups: number of channel groups of the 3×3 convolutions (ResNeXt, arXiv 1611.05431).
      group_width: number of channels of each group in block1. It doubles in each later block up to
        block4.
    """

    stem_width: int = 0
    average_shortcut: bool = False
    groups: int = 1
    group_width: int = 64


_DEEP = Variant(stem_width=32, average_shortcut=True)
# ResNets by their name in timm.
TIMM: Mapping[str, tuple[int, Variant]] = {
    "resnet34": (34, Variant()),
    "resnet152": (152, Variant()),
    # ResNetV1c of mmsegmentation.
    "resnet50c": (50, Variant(stem_width=32)),
    "resnet101c": (101, Variant(stem_width=32)),
    "resnet18d": (18, _DEEP),
    "resnet34d": (34, _DEEP),
    "resnet50d": (50, _DEEP),
    "resnet101d": (101, _DEEP),
    "resnext50_32x4d": (50, Variant(groups=32, group_width=4)),
}
# Hyperparameters of batch normalization in PyTorch.
PYTORCH_NORMALIZATION = Normalization(decay=0.9, epsilon=1e-5)


def low_level_features(depth: Depth) -> tuple[Feature, ...]:
    """Returns one endpoint for decoders from each of block1, block2 and block3.

    The endpoint is the output of the last convolution in the second-to-last unit of the block,
    before the shortcut is added.
    """
    return tuple(
        Feature(
            f"block{block}/unit_{depth.block_sizes[block - 1] - 1}/{depth.last_convolution}",
            depth.expansion * WIDTHS[block - 1],
            2 ** (block + 1),
        )
        for block in (1, 2, 3)
    )


def block_features(depth: Depth) -> tuple[Feature, ...]:
    """Returns the outputs of block1, block2 and block3 as endpoints for decoders.

    The strides are those with `stride_placement` other than `slim`. With `slim`, each of these
    blocks ends with a stride, so the strides are twice as large.
    """
    return tuple(
        Feature(f"block{block}", depth.expansion * WIDTHS[block - 1], 2 ** (block + 1))
        for block in (1, 2, 3)
    )


class ResidualUnit(nn.Module):
    """Residual unit: convolutions plus shortcut, then ReLU (arXiv 1512.03385, figure 5).

    Attributes:
      features: number of output channels.
      width: number of output channels of the convolutions before the last.
      convolutions: stride and atrous rate of each convolution: three in a bottleneck unit, two in a
        basic unit.
      conv_norm: constructor of `ConvNorm` in which the arguments that all convolutions of the unit
        share are already set.
      groups: number of channel groups of the 3×3 convolution in a bottleneck unit.
      squeezed: number of channels inside squeeze and excitation after the 3×3 convolution; 0: no
        squeeze and excitation.
      average_shortcut: whether the shortcut averages 2×2 pixels, see `Variant`. As in timm, if the
        stride was replaced by a rate, the shortcut averages at stride 1.
      drop_rate: probability of dropping the residual branch in training (stochastic depth).
    """

    features: int
    width: int
    convolutions: tuple[Unit, ...]
    conv_norm: partial[ConvNorm]
    groups: int = 1
    squeezed: int = 0
    average_shortcut: bool = False
    drop_rate: float = 0.0

    @property
    def stride(self) -> int:
        """Stride of the unit: the product of the strides of its convolutions."""
        return math.prod(unit.stride for unit in self.convolutions)

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the output of the unit and, for decoders, the output of its last convolution."""
        kernel_sizes = (1, 3, 1) if len(self.convolutions) == 3 else (3, 3)
        hidden, last = inputs, len(kernel_sizes)
        for number, (size, unit) in enumerate(
            zip(kernel_sizes, self.convolutions, strict=True), start=1
        ):
            convolution = self.conv_norm(
                self.features if number == last else self.width,
                kernel_size=size,
                stride=unit.stride,
                rate=unit.rate,
                groups=self.groups if 1 < number < last else 1,
                name=f"conv{number}",
                **({"activation": None} if number == last else {}),
            )
            hidden = convolution(hidden, train)
            if self.squeezed and 1 < number < last:
                form = self.conv_norm.keywords.get("form", Form())
                gate = SqueezeExcitation(self.squeezed, form=form, name="squeeze_excitation")
                hidden = gate(hidden)
        branch = StochasticDepth(self.drop_rate)(hidden, train)
        outputs = nn.relu(branch + self._shortcut(inputs, train))
        return ops.constrain_rows((outputs, hidden))

    def _shortcut(self, inputs: jax.Array, train: bool) -> jax.Array:
        stride = self.stride
        if inputs.shape[-1] == self.features:
            return _subsampled(inputs, stride) if stride > 1 else inputs
        if self.average_shortcut:
            inputs, stride = _averaged(inputs, stride), 1
        projection = self.conv_norm(
            self.features, kernel_size=1, stride=stride, activation=None, name="shortcut"
        )
        return projection(inputs, train)


def _subsampled(inputs: jax.Array, stride: int) -> jax.Array:
    """Keeps every `stride`-th pixel: [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, C]."""
    # If H and W are symbolic, indexing would be a gather, which exported formats do not support.
    return jax.lax.slice(inputs, (0,) * 4, inputs.shape, (1, stride, stride, 1))


def _averaged(inputs: jax.Array, stride: int) -> jax.Array:
    """Averages 2×2 pixels at stride 1 or 2: [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, C].

    Windows at the bottom and right borders can extend beyond the map. As in timm, the average at
    stride 2 is over the pixels inside the map; at stride 1, pixels outside the map count as zeros.
    """
    if stride == 1:
        return nn.avg_pool(inputs, (2, 2), padding=((0, 1), (0, 1)))
    return ops.mean_over_pairs(inputs)


class ResNet(nn.Module):
    """Backbone ResNet (arXiv 1512.03385), with DeepLab v3's cascade if `cascade_blocks` is above 4.

    Attributes:
      depth: 18, 34, 50, 101 or 152.
      beta_stem: whether the stem has three 3×3 convolutions instead of one 7×7 convolution.
      output_stride: ratio of image size to the size of `output`, a power of 2 from 4 to
        2^(cascade_blocks + 1). Once the strides multiply to this ratio, all further strides become
        atrous rates.
      multi_grid: rates of the units in block4 and later blocks, relative to the rate of the block
        (DeepLab v3, section 3.2.1); None: all 1.
      stride_placement: convolution that has the stride between two blocks. `slim`: the second
        convolution in the last unit of the first block. `caffe`: the first convolution in the first
        unit of the second block. `torchvision`: the first 3×3 convolution in the first unit of the
        second block.
      rate_start: first convolution with the atrous rate that replaces a stride: the convolution
        that had the stride (`same_unit`) or the convolution after it (`next_unit`). All later 3×3
        convolutions have the rate, too; 1×1 convolutions have none.
      cascade_blocks: number of the last block, 4 to 7; block5 to block7 form DeepLab v3's cascade
        (section 3.2).
      variant: changes to the published network, see `Variant`.
      stochastic_depth: probability of dropping the residual branch of the last unit in training;
        it rises linearly from 0 at the first unit.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.
    """

    depth: int
    beta_stem: bool = False
    output_stride: int = 16
    multi_grid: tuple[int, ...] | None = None
    stride_placement: str = "slim"
    rate_start: str = "next_unit"
    cascade_blocks: int = 4
    variant: Variant = Variant()
    stochastic_depth: float = 0.0
    normalization: Normalization = NORMALIZATION
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Computes the endpoints of a normalized image [N, H, W, C].

        Returns:
          {name of the endpoint: feature map}. `output` is the output of the last block.
        """
        depth = DEPTHS[self.depth]
        conv_norm = partial(ConvNorm, normalization=self.normalization, form=self.form)
        hidden = self._stem(image, train, conv_norm)
        endpoints = {"stem": hidden}
        units, variant = self._units(), self.variant
        rates = depth_rates(self.stochastic_depth, len(units))
        for ((block, number), convolutions), rate in zip(units.items(), rates, strict=True):
            name, width = f"block{block}/unit_{number}", WIDTHS[block - 1]
            unit = self.form.block(ResidualUnit)(
                depth.expansion * width,
                width * variant.groups * variant.group_width // 64,
                convolutions,
                conv_norm,
                groups=variant.groups,
                average_shortcut=variant.average_shortcut and block > 1,
                drop_rate=rate,
                name=name,
            )
            hidden, endpoints[f"{name}/{depth.last_convolution}"] = unit(hidden, train)
            endpoints[f"block{block}"] = hidden
        return endpoints | {"output": hidden}

    def _units(self) -> dict[tuple[int, int], tuple[Unit, ...]]:
        """Returns the stride and rate of every convolution, by (block, unit)."""
        depth = DEPTHS[self.depth]
        sizes = (*depth.block_sizes, *[depth.block_sizes[3]] * (self.cascade_blocks - 4))
        places = [(block, unit) for block, n in enumerate(sizes, 1) for unit in range(1, n + 1)]
        strides = [self._strides(block, unit, sizes) for block, unit in places]
        count = len(strides[0])
        walk = strides_to_rates(
            # The stem and the pooling together always have stride 4.
            [4, *(stride for unit in strides for stride in unit)],
            self.output_stride,
            f"resnet_{self.depth} with {len(sizes)} blocks",
            same_unit=self.rate_start == "same_unit",
        )[1:]
        units = (walk[start : start + count] for start in range(0, len(walk), count))
        return {
            place: tuple(
                Unit(unit.stride, unit.rate * self._grid(*place) if size > 1 else 1)
                for size, unit in zip(depth.kernel_sizes, convolutions, strict=True)
            )
            for place, convolutions in zip(places, units, strict=True)
        }

    def _strides(self, block: int, unit: int, sizes: tuple[int, ...]) -> list[int]:
        """Returns the stride of each convolution in a unit, before rates replace any strides.

        Args:
          block, unit: number of the block, and of the unit in the block, from 1.
          sizes: number of units in each block.
        """
        bottleneck = DEPTHS[self.depth].bottleneck
        strides = [1, 1, 1] if bottleneck else [1, 1]
        if self.stride_placement == "slim":
            if unit == sizes[block - 1] and block < len(sizes):
                strides[1] = 2
        elif unit == 1 and block > 1:
            strides[1 if bottleneck and self.stride_placement == "torchvision" else 0] = 2
        return strides

    def _grid(self, block: int, unit: int) -> int:
        return self.multi_grid[unit - 1] if self.multi_grid and block >= 4 else 1

    def _stem(self, image: jax.Array, train: bool, conv_norm: partial[ConvNorm]) -> jax.Array:
        beta_width = int(64 * DEPTHS[self.depth].beta_width) if self.beta_stem else 0
        if width := self.variant.stem_width or beta_width:
            hidden = conv_norm(width, stride=2, name="stem_1")(image, train)
            hidden = conv_norm(width, name="stem_2")(hidden, train)
            hidden = conv_norm(2 * width, name="stem_3")(hidden, train)
        else:
            hidden = conv_norm(64, kernel_size=7, stride=2, name="stem_1")(image, train)
        padding = self._pool_padding(hidden.shape[1:3])
        return nn.max_pool(hidden, (3, 3), strides=(2, 2), padding=padding)

    def _pool_padding(self, size: ops.Size) -> ops.Padding:
        """Returns the padding of the 3×3 max pooling for an input of `size` (height, width).

        The stride placement determines only the padding of an even length: (0, 1) for `slim`,
        (1, 2) for `caffe`, and (1, 1) for `torchvision`. The padding of an odd length is (1, 1).
        """
        if self.stride_placement == "slim":
            return ops.same_padding(size, 3, 2, 1)
        # Caffe rounds the output size up.
        extra = [length % 2 == 0 and self.stride_placement == "caffe" for length in size]
        return (1, 1 + extra[0]), (1, 1 + extra[1])
