"""Configurations of EfficientNets and MobileNetV4, as in timm."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from flax import linen as nn

from deeplab_jax.backbones.atrous import Feature
from deeplab_jax.backbones.mobilenet import rounded_width
from deeplab_jax.layers import Normalization

# Kinds of units: convolution; convolution plus input; k×k expansion → 1×1 projection; 1×1 expansion
# → depthwise convolution → 1×1 projection.
CONV, RESIDUAL_CONV, FUSED, INVERTED = "conv", "residual_conv", "fused", "inverted"


class Row(NamedTuple):
    """One row in the table of a network: units of the same shape, in sequence.

    Only the first unit can have a stride above 1.

    Attributes:
      kind: kind of the units: `conv` (convolution), `residual_conv` (convolution plus input),
        `fused` (k×k expansion → 1×1 projection) or `inverted` (inverted residual).
      units: number of units.
      kernel_size: kernel size of the spatial convolution; 0: an inverted residual without a
        depthwise convolution between its 1×1 convolutions.
      stride: stride of the first unit.
      expansion: number of hidden channels divided by the number of input channels; 1: an inverted
        residual without the 1×1 expansion.
      features: number of output channels.
      first_kernel: kernel size of a further depthwise convolution before the expansion; 0: none.
    """

    kind: str
    units: int
    kernel_size: int
    stride: int
    expansion: int
    features: int
    first_kernel: int = 0


Stages = tuple[tuple[Row, ...], ...]


class Network(NamedTuple):
    """Configuration of one network.

    Attributes:
      stages: units of each stage, as rows of a table, see `Row`.
      activation: activation function.
      stem: number of channels of the first convolution.
      width: multiplier of the number of channels.
      depth: multiplier of the number of units of each row.
      fixed_ends: True: `width` does not scale the stem and the image classifier, and `depth` does
        not scale the first and the last stage. False: all of them are scaled.
      squeeze: whether inverted residuals have squeeze and excitation.
      tensorflow: whether convolutions are padded as in TensorFlow (`SAME`).
      preprocessing: published normalization of input pixels.
      head_place: place of the 1×1 convolution of the image classifier: `before` or `after` the
        pooling.
    """

    stages: Stages
    activation: Callable[[jax.Array], jax.Array]
    stem: int = 32
    width: float = 1.0
    depth: float = 1.0
    fixed_ends: bool = False
    squeeze: bool = False
    tensorflow: bool = False
    preprocessing: str = "mean_std"
    head_place: str = "before"


# arXiv 1905.11946, table 1.
EFFICIENTNET: Stages = (
    (Row(INVERTED, 1, 3, 1, 1, 16),),
    (Row(INVERTED, 2, 3, 2, 6, 24),),
    (Row(INVERTED, 2, 5, 2, 6, 40),),
    (Row(INVERTED, 3, 3, 2, 6, 80),),
    (Row(INVERTED, 3, 5, 1, 6, 112),),
    (Row(INVERTED, 4, 5, 2, 6, 192),),
    (Row(INVERTED, 1, 3, 1, 6, 320),),
)
# (width, depth) of the sizes B0 to B4, and of Lite0 to Lite4.
MULTIPLIERS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))
# arXiv 2104.00298, rows as in timm.
EFFICIENTNET_V2: Mapping[str, Stages] = {
    "s": (
        (Row(RESIDUAL_CONV, 2, 3, 1, 1, 24),),
        (Row(FUSED, 4, 3, 2, 4, 48),),
        (Row(FUSED, 4, 3, 2, 4, 64),),
        (Row(INVERTED, 6, 3, 2, 4, 128),),
        (Row(INVERTED, 9, 3, 1, 6, 160),),
        (Row(INVERTED, 15, 3, 2, 6, 256),),
    ),
    "m": (
        (Row(RESIDUAL_CONV, 3, 3, 1, 1, 24),),
        (Row(FUSED, 5, 3, 2, 4, 48),),
        (Row(FUSED, 5, 3, 2, 4, 80),),
        (Row(INVERTED, 7, 3, 2, 4, 160),),
        (Row(INVERTED, 14, 3, 1, 6, 176),),
        (Row(INVERTED, 18, 3, 2, 6, 304),),
        (Row(INVERTED, 5, 3, 1, 6, 512),),
    ),
}
# arXiv 2404.10518, rows as in timm.
MOBILENET_V4: Mapping[str, Stages] = {
    "small": (
        (Row(CONV, 1, 3, 2, 1, 32), Row(CONV, 1, 1, 1, 1, 32)),
        (Row(CONV, 1, 3, 2, 1, 96), Row(CONV, 1, 1, 1, 1, 64)),
        (
            Row(INVERTED, 1, 5, 2, 3, 96, 5),
            Row(INVERTED, 4, 3, 1, 2, 96),
            Row(INVERTED, 1, 0, 1, 4, 96, 3),
        ),
        (
            Row(INVERTED, 1, 3, 2, 6, 128, 3),
            Row(INVERTED, 1, 5, 1, 4, 128, 5),
            Row(INVERTED, 1, 5, 1, 4, 128),
            Row(INVERTED, 1, 5, 1, 3, 128),
            Row(INVERTED, 2, 3, 1, 4, 128),
        ),
        (Row(CONV, 1, 1, 1, 1, 960),),
    ),
    "medium": (
        (Row(FUSED, 1, 3, 2, 4, 48),),
        (Row(INVERTED, 1, 5, 2, 4, 80, 3), Row(INVERTED, 1, 3, 1, 2, 80, 3)),
        (
            Row(INVERTED, 1, 5, 2, 6, 160, 3),
            Row(INVERTED, 2, 3, 1, 4, 160, 3),
            Row(INVERTED, 1, 5, 1, 4, 160, 3),
            Row(INVERTED, 1, 3, 1, 4, 160, 3),
            Row(INVERTED, 1, 0, 1, 4, 160, 3),
            Row(INVERTED, 1, 0, 1, 2, 160),
            Row(INVERTED, 1, 0, 1, 4, 160, 3),
        ),
        (
            Row(INVERTED, 1, 5, 2, 6, 256, 5),
            Row(INVERTED, 1, 5, 1, 4, 256, 5),
            Row(INVERTED, 2, 5, 1, 4, 256, 3),
            Row(INVERTED, 1, 0, 1, 4, 256),
            Row(INVERTED, 1, 0, 1, 4, 256, 3),
            Row(INVERTED, 1, 5, 1, 2, 256, 3),
            Row(INVERTED, 1, 5, 1, 4, 256, 5),
            Row(INVERTED, 2, 0, 1, 4, 256),
            Row(INVERTED, 1, 0, 1, 2, 256, 5),
        ),
        (Row(CONV, 1, 1, 1, 1, 960),),
    ),
    "large": (
        (Row(FUSED, 1, 3, 2, 4, 48),),
        (Row(INVERTED, 1, 5, 2, 4, 96, 3), Row(INVERTED, 1, 3, 1, 4, 96, 3)),
        (
            Row(INVERTED, 1, 5, 2, 4, 192, 3),
            Row(INVERTED, 3, 3, 1, 4, 192, 3),
            Row(INVERTED, 1, 5, 1, 4, 192, 3),
            Row(INVERTED, 5, 3, 1, 4, 192, 5),
            Row(INVERTED, 1, 0, 1, 4, 192, 3),
        ),
        (
            Row(INVERTED, 4, 5, 2, 4, 512, 5),
            Row(INVERTED, 1, 0, 1, 4, 512, 5),
            Row(INVERTED, 1, 3, 1, 4, 512, 5),
            Row(INVERTED, 2, 0, 1, 4, 512, 5),
            Row(INVERTED, 1, 3, 1, 4, 512, 5),
            Row(INVERTED, 1, 5, 1, 4, 512, 5),
            Row(INVERTED, 3, 0, 1, 4, 512, 5),
        ),
        (Row(CONV, 1, 1, 1, 1, 960),),
    ),
}


def _efficientnets(prefix: str, tensorflow: bool) -> dict[str, Network]:
    """Returns all sizes of EfficientNet, EfficientNet-Lite and EfficientNetV2, by name.

    Args:
      prefix: text with which all names begin.
      tensorflow: whether the padding is that of TensorFlow instead of PyTorch.
    """
    second = "minus_one_one" if tensorflow else "mean_std"
    base = Network(EFFICIENTNET, nn.silu, squeeze=True, tensorflow=tensorflow)
    lite = Network(
        EFFICIENTNET, nn.relu6, fixed_ends=True, tensorflow=tensorflow, preprocessing=second
    )
    sizes = list(enumerate(MULTIPLIERS))
    return {
        **{f"{prefix}efficientnet_b{n}": base._replace(width=w, depth=d) for n, (w, d) in sizes},
        **{f"{prefix}efficientnet_lite{n}": lite._replace(width=w, depth=d) for n, (w, d) in sizes},
        **{
            f"{prefix}efficientnetv2_{size}": base._replace(
                stages=stages, stem=24, preprocessing=second
            )
            for size, stages in EFFICIENTNET_V2.items()
        },
    }


def _mobilenet_v4(size: str, stem: int, width: float = 1.0) -> Network:
    return Network(
        MOBILENET_V4[size],
        nn.relu,
        stem=stem,
        width=width,
        fixed_ends=True,
        preprocessing="minus_one_one" if width < 1 else "mean_std",
        head_place="after",
    )


NETWORKS = {
    **_efficientnets("", tensorflow=False),
    **_efficientnets("tf_", tensorflow=True),
    "mobilenetv4_conv_small_035": _mobilenet_v4("small", 32, 0.35),
    "mobilenetv4_conv_small_050": _mobilenet_v4("small", 32, 0.5),
    "mobilenetv4_conv_small": _mobilenet_v4("small", 32),
    "mobilenetv4_conv_medium": _mobilenet_v4("medium", 32),
    "mobilenetv4_conv_large": _mobilenet_v4("large", 24),
}
HEAD_CHANNELS = 1280


def head_channels(network: Network) -> int:
    """Returns the number of channels of the 1×1 convolution of the image classifier."""
    return HEAD_CHANNELS if network.fixed_ends else rounded_width(HEAD_CHANNELS * network.width)


def stem_channels(network: Network) -> int:
    """Returns the number of channels of the first convolution."""
    return network.stem if network.fixed_ends else rounded_width(network.stem * network.width)


def units(network: Network) -> list[list[Row]]:
    """Returns one row for each unit of each stage, after scaling by `width` and `depth`."""
    stages, last = [], len(network.stages) - 1
    for number, rows in enumerate(network.stages):
        depth = 1 if network.fixed_ends and number in (0, last) else network.depth
        scaled = []
        for row in rows:
            unit = row._replace(units=1, features=rounded_width(row.features * network.width))
            further = math.ceil(row.units * depth) - 1
            scaled += [unit, *[unit._replace(stride=1)] * further]
        stages.append(scaled)
    return stages


def features(network: Network) -> tuple[Feature, ...]:
    """Returns the endpoints (named feature maps): the last stage at each stride of 4 or more."""
    stride, found = 2, {}
    for number, rows in enumerate(units(network), start=1):
        stride *= math.prod(row.stride for row in rows)
        found[stride] = Feature(f"stage_{number}", rows[-1].features, stride)
    return tuple(feature for feature in found.values() if feature.stride >= 4)


def normalization(network: Network) -> Normalization:
    """Returns the published hyperparameters of batch normalization."""
    # PyTorch's defaults, and those of the released TensorFlow code.
    return Normalization(0.99, 1e-3) if network.tensorflow else Normalization(0.9, 1e-5)
