"""ResNet v1 bottleneck networks in slim's form: the stride is on a block's last unit."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.backbones.atrous import Unit, strides_to_rates
from deeplab_jax.backbones.features import Feature
from deeplab_jax.layers import ConvNorm, Normalization

WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
# Three units in block4 take the three rates of the multi-grid.
UNITS_IN_BLOCK4 = 3
NORMALIZATION = Normalization(decay=0.95, epsilon=1e-5)


def low_level_features(block_sizes: Sequence[int]) -> tuple[Feature, ...]:
    """Returns the decoder's endpoints: inner tensors before the addition, before any ReLU."""
    return (
        Feature(f"block1/unit_{block_sizes[0] - 1}/conv3", 256, 4),
        Feature(f"block2/unit_{block_sizes[1] - 1}/conv3", 512, 8),
        Feature(f"block3/unit_{block_sizes[2] - 1}/conv3", 1024, 16),
    )


class Bottleneck(nn.Module):
    """1×1 → 3×3 → 1×1, added to the shortcut, then ReLU (arXiv 1512.03385, figure 5)."""

    width: int
    stride: int
    rate: int
    conv_norm: partial

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the unit's output and the last convolution's, which decoders use."""
        features = EXPANSION * self.width
        hidden = self.conv_norm(self.width, kernel_size=1, name="conv1")(inputs, train)
        hidden = self.conv_norm(self.width, stride=self.stride, rate=self.rate, name="conv2")(
            hidden, train
        )
        conv3 = self.conv_norm(features, kernel_size=1, activation=None, name="conv3")(
            hidden, train
        )
        if inputs.shape[-1] == features:
            shortcut = inputs[:, :: self.stride, :: self.stride]
        else:
            shortcut = self.conv_norm(
                features, kernel_size=1, stride=self.stride, activation=None, name="shortcut"
            )(inputs, train)
        return nn.relu(conv3 + shortcut), conv3


class ResNet(nn.Module):
    """ResNet's features.

    Attributes:
      block_sizes: units in each of the four blocks.
      beta_stem: three 3×3 convolutions, the last of 128 channels, instead of one 7×7.
      output_stride: 4 to 32; strides beyond it become atrous rates.
      multi_grid: rates of block4's units relative to its base rate (DeepLab v3, section 3.2.1).
      normalization: constants of batch normalisation.
      dtype: of the computation.
    """

    block_sizes: tuple[int, int, int, int]
    beta_stem: bool = False
    output_stride: int = 16
    multi_grid: tuple[int, ...] = (1, 1, 1)
    normalization: Normalization = NORMALIZATION
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalised image [N, H, W, C] to endpoints by name; the last is `output`."""
        conv_norm = partial(ConvNorm, normalization=self.normalization, dtype=self.dtype)
        stem, *units = self._units()
        hidden = self._stem(image, train, conv_norm, stem)
        endpoints = {"stem": hidden}
        walk = iter(units)
        for block, (width, size) in enumerate(zip(WIDTHS, self.block_sizes, strict=True), start=1):
            for number in range(1, size + 1):
                unit = next(walk)
                grid = self.multi_grid[number - 1] if block == 4 else 1
                name = f"block{block}/unit_{number}"
                hidden, endpoints[f"{name}/conv3"] = Bottleneck(
                    width, unit.stride, unit.rate * grid, conv_norm, name=name
                )(hidden, train)
            endpoints[f"block{block}"] = hidden
        return endpoints | {"output": hidden}

    def _units(self) -> list[Unit]:
        """The strided places in order: the stem with its pooling, then every unit."""
        strides = [4]
        for block, size in enumerate(self.block_sizes, start=1):
            strides += [1] * (size - 1) + [2 if block < 4 else 1]
        return strides_to_rates(strides, self.output_stride, "this ResNet")

    def _stem(self, image: jax.Array, train: bool, conv_norm: partial, unit: Unit) -> jax.Array:
        if self.beta_stem:
            hidden = conv_norm(64, stride=2, name="stem_1")(image, train)
            hidden = conv_norm(64, name="stem_2")(hidden, train)
            hidden = conv_norm(128, name="stem_3")(hidden, train)
        else:
            hidden = conv_norm(64, kernel_size=7, stride=2, name="stem_1")(image, train)
        return nn.max_pool(hidden, (3, 3), strides=(2, 2), padding="SAME")
