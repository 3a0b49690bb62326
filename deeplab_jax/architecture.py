"""Architecture of a DeepLab network as plain values, with the keywords of `create_model`.

This module imports neither JAX nor Flax, so commands can check names and values quickly.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from deeplab_jax.declarations import (
    ABOVE_ZERO,
    ABOVE_ZEROS,
    CONVOLUTIONS,
    COUNT,
    DIFFERENT_POSITIVES,
    FRACTION,
    FRACTIONS,
    NUMBERS,
    POSITIVE,
    POSITIVES,
    SCALES,
    SIZE,
    WIDTHS,
    check_value,
    keyword,
)
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.formats import MODEL, unknown_field

# Mean colors: of the released code and of Caffe on the scale 0..255, of torchvision on 0..1.
SLIM_MEAN = (123.15, 115.90, 103.06)
VGG_MEAN = (123.68, 116.78, 103.94)
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (104.008, 116.669, 122.675)

RGB_PREPROCESSINGS = ("mean", "vgg_mean", "mean_std", "caffe_bgr")
PREPROCESSINGS = ("minus_one_one", *RGB_PREPROCESSINGS, "none")
# Types of pixels, with their largest value.
LARGEST_PIXEL = {"uint8": 255, "uint16": 65535}
STRIDE_PLACEMENTS = ("slim", "caffe", "torchvision")
RATE_STARTS = ("next_unit", "same_unit", "next_stage", "first_units")
LOW_LEVEL_SOURCES = ("convolution", "block")


def mean_pixel(
    preprocessing: str, channels: int = 3, image_dtype: str = "uint8"
) -> tuple[int, ...]:
    """Returns the pixel value that images are padded with: the mean of the normalization, rounded.

    The normalization then maps padding to 0, up to rounding (127.5 becomes 127), as in the released
    code.

    Args:
      preprocessing: normalization, one of PREPROCESSINGS.
      channels: number of image channels.
      image_dtype: type of the pixels, one of LARGEST_PIXEL.
    """
    means = {
        "minus_one_one": (LARGEST_PIXEL[image_dtype] / 2,) * channels,
        "mean": SLIM_MEAN,
        "vgg_mean": VGG_MEAN,
        "mean_std": tuple(255 * mean for mean in TORCHVISION_MEAN),
        "caffe_bgr": CAFFE_MEAN_BGR[::-1],
        "none": (0,) * channels,
    }
    return _rounded(means[preprocessing])


def _rounded(means: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(math.ceil(mean - 0.5) for mean in means)


# ASPP rates at output stride 16. They double when the output stride halves, so that the kernels
# cover the same part of the image.
RATES_AT_16 = (6, 12, 18)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """DeepLab network with all defaults resolved; every field is a keyword of `create_model`."""

    backbone: str = keyword(
        help="Name of the backbone.",
        shown_default="v1 `vgg_16`; v2 `resnet_101`; v3 `resnet_101_beta`; v3+ `xception_65`",
    )
    num_classes: int = keyword(21, "Number of logits per pixel.", rule=POSITIVE)
    in_channels: int = keyword(3, "Number of image channels.", rule=POSITIVE)
    image_dtype: str = keyword(
        "uint8", "Type of the input pixels: `uint8` or `uint16`.", legal=tuple(LARGEST_PIXEL)
    )
    output_stride: int = keyword(
        16,
        "Output stride of the encoder: 4, 8, 16 or 32; up to 256 with a cascade.",
        unit="image pixels",
        source="DeepLab v3, section 3.1",
        shown_default="v1, v2 and torchvision's ResNets 8; else 16",
    )
    head: str = keyword(
        "aspp",
        "Head: `large_fov` (v1), `aspp`, `cascade`, `pooling` (image pooling and 1×1), `plain` "
        "(the classifier alone), `spp`, `lr_aspp` or `dpc`.",
        legal=("large_fov", "aspp", "cascade", "pooling", "plain", "spp", "lr_aspp", "dpc"),
        shown_default="v1 `large_fov`; `deeplab_v3` on `mobilenet_v2` `pooling`, on `_seg` "
        "`lr_aspp`; else `aspp`",
    )
    fusion: str = keyword(
        "concat",
        "Fusion of the ASPP branches: `sum` of scores (v2) or `concat` of features (v3).",
        legal=("concat", "sum"),
        shown_default="v2 `sum`, else `concat`",
    )
    fov: str = keyword(
        "large",
        "Kernel size of fc6: `7x7`, `4x4` or `large` (3×3).",
        source="DeepLab v2, table 1",
        legal=("large", "4x4", "7x7"),
    )
    fc_channels: int = keyword(
        0,
        "Number of channels of fc6 and fc7; 0: the atrous convolutions of the head are the "
        "classifiers.",
        source="DeepLab v2, table 1",
        rule=COUNT,
        shown_default="1024 or 4096 by `fov`; v2 on other backbones than VGG 0",
    )
    atrous_rates: tuple[int, ...] = keyword(
        RATES_AT_16,
        "Atrous rates of the convolutions in the head.",
        unit="pixels of the encoder output",
        source="DeepLab v3, section 3.3; v2, section 4.1.2",
        rule=DIFFERENT_POSITIVES,
        shown_default="follow the output stride (below): v3, v3+ 6, 12, 18 at 16; `fusion=sum` "
        "6, 12, 18, 24 at 8; `large_fov` 12 at 8 (4 for `fov=4x4` and `7x7`); torchvision "
        "12, 24, 36 at its own stride",
    )
    multi_grid: tuple[int, ...] | None = keyword(
        None,
        "Relative atrous rates of the units in block4 of a ResNet (and in block5 to block7).",
        source="DeepLab v3, section 3.2.1",
        rule=POSITIVES,
        shown_default="all 1; the recipes (1, 2, 4)",
    )
    cascade_blocks: int = keyword(
        4,
        "Number of the last block of a ResNet: 4, or 5 to 7 with a cascade.",
        source="DeepLab v3, section 3.2",
        legal=(4, 5, 6, 7),
        shown_default="7 for `head=cascade`",
    )
    image_pooling: str = keyword(
        "global",
        "Image pooling: `none`, `crop` (average over windows that correspond to the training crop, "
        "as in the released networks) or `global`. `spp` and `lr_aspp` always pool.",
        source="DeepLab v3, section 3.3",
        legal=("none", "crop", "global"),
        shown_default="v1, v2, and heads that do not pool `none`; else `global`",
    )
    pooling_crop: tuple[int, int] = keyword(
        (513, 513),
        "Height and width of the crop that `image_pooling=crop` averages over.",
        unit="pixels",
        rule=SIZE,
        shown_default="the training crop",
    )
    aspp_channels: int = keyword(
        256,
        "Number of output channels of every ASPP branch and of the projection.",
        rule=POSITIVE,
        shown_default="256; `lr_aspp` 128",
    )
    projection_size: int = keyword(
        1,
        "Kernel size of the projection after the concatenation of the ASPP branches: 1 or 3.",
        legal=(1, 3),
        source="3: mmsegmentation",
    )
    dropout_rate: float = keyword(
        0.1,
        "Fraction of features dropped after the projection, or after fc6 and fc7.",
        rule=FRACTION,
        shown_default="0.1; v1, v2 with fc6 and fc7, torchvision 0.5; heads without dropout 0",
    )
    decoder: str = keyword(
        "none",
        "Decoder: `none`, `v3plus`, `conv2_conv3` or `msc` (DeepLab-MSc).",
        source="DeepLab v3+, section 3.1",
        legal=("none", "v3plus", "conv2_conv3", "msc"),
        shown_default="v3+ `v3plus`, else `none`",
    )
    low_level_channels: int = keyword(
        48,
        "Number of channels that the decoder reduces the low-level features to.",
        rule=POSITIVE,
    )
    decoder_convs: tuple[tuple[int, int], ...] = keyword(
        ((3, 256), (3, 256)),
        "Kernel size and output channels of each decoder convolution after the concatenation.",
        rule=CONVOLUTIONS,
        shown_default="((3, 256), (3, 256)); `conv2_conv3` ((3, 256),)",
    )
    decoder_dropout: tuple[float, ...] = keyword(
        (),
        "Fraction of features dropped after each decoder convolution; (): none.",
        rule=FRACTIONS,
        source="pytorch-deeplab-xception",
    )
    low_level_source: str = keyword(
        "convolution",
        "Low-level features of the decoder: `convolution` (output of the last convolution before "
        "the shortcut in a ResNet, of the depthwise convolution in MobileNetV2) or `block` (output "
        "of the block).",
        legal=LOW_LEVEL_SOURCES,
        source="`convolution`: as released; `block`: PyTorch codebases",
    )
    separable: bool = keyword(
        False,
        "Depthwise separable convolutions in the ASPP branches and the decoder.",
        source="DeepLab v3+, section 3.1",
        shown_default="v3+ on Xception True, else False",
    )
    separable_norm: bool = keyword(
        True,
        "Batch normalization and ReLU between the depthwise and the 1×1 convolution of the "
        "separable convolutions in ASPP and decoder.",
        source="False: segmentation_models.pytorch",
    )
    refine_encoder: bool = keyword(
        False,
        "Additional 3×3 convolution between the head and the decoder, separable if `separable`.",
        source="segmentation_models.pytorch",
    )
    refine: bool = keyword(
        False, "Additional 3×3 convolution before the classifier.", shown_default="torchvision only"
    )
    multi_scale: tuple[float, ...] = keyword(
        (),
        "Scale factors of the input image, 1 first; the scores of all scales are fused by their "
        "maximum.",
        source="DeepLab v2, section 4.1.1",
        rule=SCALES,
    )
    depth_multiplier: float = keyword(
        1.0, "Factor on the number of channels of every MobileNet layer.", rule=ABOVE_ZERO
    )
    width_divisor: int = keyword(
        1,
        "Divisor of the number of channels of every MobileNetV2 layer: 1, or 8 as in slim's image "
        "classifiers.",
        legal=(1, 8),
    )
    stochastic_depth: float = keyword(
        0.0,
        "Probability of dropping the last residual branch of a ResNet or `timm/` backbone in "
        "training; it rises linearly from 0 at the first.",
        source="arXiv 1603.09382",
        rule=FRACTION,
    )
    last_convolution: bool = keyword(
        False,
        "1×1 convolution to 1280 channels at the end of MobileNetV2, as in the image classifier.",
        source="segmentation_models.pytorch",
    )
    pad_first_convolution: bool = keyword(
        True,
        "Padding of the first convolution of MobileNetV2.",
        source="False: DeepLabV3Plus-Pytorch",
    )
    pad_before_expansion: bool = keyword(
        False,
        "Padding of a MobileNetV2 unit before its expansion instead of before its depthwise "
        "convolution.",
        source="DeepLabV3Plus-Pytorch, pytorch-deeplab-xception",
    )
    aux_head: bool = keyword(
        False,
        "Auxiliary classifier on an intermediate feature map, for training only.",
        source="torchvision",
        shown_default="torchvision only",
    )
    stride_placement: str | None = keyword(
        None,
        "Position of the stride within a ResNet unit: `slim`, `caffe` or `torchvision`. On a "
        "MobileNet, `torchvision` pads symmetrically.",
        legal=STRIDE_PLACEMENTS,
        shown_default="v2 on a ResNet `caffe`; torchvision's own; else `slim`",
    )
    rate_start: str = keyword(
        "next_unit",
        "First unit with the new atrous rate if the stride of a unit becomes a rate: the next unit "
        "(`next_unit`), the unit itself (`same_unit`), or the first unit of the next stage "
        "(`next_stage`). With `first_units`, only the unit itself and the first unit of every "
        "later stage have the rate.",
        legal=RATE_STARTS,
        source="`next_unit`: slim, torchvision; `same_unit`: segmentation_models.pytorch; "
        "`next_stage`, `first_units`: MobileNetV2 of pytorch-deeplab-xception and mmsegmentation",
    )
    align_corners: bool = keyword(
        True,
        "Alignment of the corner pixels' centers in every resize; False: half-pixel centers.",
        shown_default="True; torchvision and ConvNeXt False",
    )
    multiple_of_stride: bool = keyword(
        False,
        "Input sides that are multiples of the output stride, although corners are aligned.",
        source="segmentation_models.pytorch",
    )
    preprocessing: str = keyword(
        "minus_one_one",
        "Normalization of the input pixels: `minus_one_one`, `mean`, `vgg_mean` (slim's VGG), "
        "`mean_std`, `caffe_bgr` or `none`.",
        legal=PREPROCESSINGS,
        shown_default="the backbone's own; images other than 8-bit RGB `mean_std`",
    )
    pixel_mean: tuple[float, ...] = keyword(
        (),
        "Mean of each channel that `mean_std` subtracts; (): that of ImageNet, for 8-bit RGB.",
        unit="pixel values",
        rule=NUMBERS,
        shown_default="images other than 8-bit RGB that of the dataset; else ()",
    )
    pixel_std: tuple[float, ...] = keyword(
        (),
        "Standard deviation of each channel that `mean_std` divides by; (): that of ImageNet.",
        unit="pixel values",
        rule=ABOVE_ZEROS,
        shown_default="images other than 8-bit RGB that of the dataset; else ()",
    )
    batch_norm_decay: float | None = keyword(
        None,
        "Decay of the moving averages of batch normalization, per training step.",
        rule=FRACTION,
        shown_default="as published for each part, 0.95 to 0.9997",
    )
    batch_norm_epsilon: float | None = keyword(
        None,
        "Constant that batch normalization in the backbone adds to the variance.",
        rule=ABOVE_ZERO,
        shown_default="the backbone's own",
    )
    frozen_batch_norm: bool = keyword(
        False,
        "Frozen batch normalization: training uses the moving averages and does not update them.",
        source="DeepLab v3, section 4.1",
    )
    ghost_batch_size: int = keyword(
        0,
        "Number of images that batch normalization takes statistics over in training; 0: the whole "
        "batch.",
        unit="images",
        rule=COUNT,
    )
    widths: tuple[tuple[str, int], ...] = keyword(
        (),
        "Path and number of output channels of each layer that structured pruning made narrower; "
        "set by `prune`.",
        rule=WIDTHS,
    )
    quantization: str = keyword(
        "none",
        "Integer type of the convolutions, for inference only: `none`, or `int8` as written by "
        "`quantize`.",
        legal=("none", "int8"),
    )
    dtype: str = keyword(
        "float32",
        "Dtype of the computation; parameters and statistics stay float32. float64 requires "
        "jax_enable_x64 and is for numerical checks.",
        legal=("float32", "bfloat16", "float64"),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(Architecture, field, getattr(self, field.name))
        check_combination(self)

    @property
    def head_gives_scores(self) -> bool:
        """True if the head outputs class scores instead of features."""
        return self.head == "lr_aspp" or (self.head == "aspp" and self.fusion == "sum")

    @property
    def pooling_window(self) -> tuple[int, int] | None:
        """Height and width of the image-pooling window on the encoder output; None: all of it."""
        if self.image_pooling != "crop":
            return None
        rows, columns = ((side - 1) // self.output_stride + 1 for side in self.pooling_crop)
        return rows, columns

    @property
    def size_remainder(self) -> int:
        """Remainder of the legal input sides divided by the output stride: 0 or 1."""
        return int(self.align_corners and not self.multiple_of_stride)

    @property
    def mean_pixel(self) -> tuple[int, ...]:
        """Pixel value that images are padded with, one number per channel; see `mean_pixel`."""
        if self.pixel_mean:
            return _rounded(self.pixel_mean)
        return mean_pixel(self.preprocessing, self.in_channels, self.image_dtype)

    @property
    def takes_rgb(self) -> bool:
        """Returns whether images are 8-bit with three channels, which are red, green and blue."""
        return (self.in_channels, self.image_dtype) == (3, "uint8")

    def describe(self) -> dict[str, Any]:
        """Returns the value of every field by name, for a JSON file."""
        return dataclasses.asdict(self)


def default_aspp_rates(output_stride: int) -> tuple[int, ...]:
    """Returns the default ASPP rates: (6, 12, 18) at output stride 16, (12, 24, 36) at 8."""
    return tuple(rate * 16 // output_stride for rate in RATES_AT_16)


# Heads that use `atrous_rates`; the others have no atrous convolutions, or fixed rates (DPC).
ATROUS_HEADS = ("aspp", "large_fov")


def check_combination(network: Architecture) -> None:
    """Checks that the fields of an architecture fit each other.

    Raises:
      DeepLabError: two fields contradict each other; the message suggests a change.
    """
    _check_preprocessing(network)
    if network.head != "cascade" and network.cascade_blocks > 4:
        raise DeepLabError(
            f"cascade_blocks={network.cascade_blocks} requires head='cascade', but head="
            f"{network.head!r}"
        )
    legal = [2**power for power in range(2, network.cascade_blocks + 2)]
    if network.output_stride not in legal:
        shown = ", ".join(map(str, legal))
        raise DeepLabError(f"output_stride={network.output_stride!r} must be one of {shown}")
    _check_rates(network)
    has_fc6 = network.head == "large_fov" and network.fc_channels > 0
    if network.fov != "large" and not has_fc6:
        raise DeepLabError(
            f"fov={network.fov!r} sets the kernel size of fc6, a layer that only head='large_fov' "
            "with fc_channels above 0 has; leave fov unset"
        )
    if network.decoder_dropout and len(network.decoder_dropout) != len(network.decoder_convs):
        raise DeepLabError(
            f"decoder_dropout={network.decoder_dropout} must have one fraction for each of the "
            f"{len(network.decoder_convs)} decoder_convs, or none"
        )
    if network.multiple_of_stride and not network.align_corners:
        raise DeepLabError(
            "multiple_of_stride=True has no effect with align_corners=False, whose input sides are "
            "multiples of the output stride; leave multiple_of_stride unset"
        )
    ends_in_scores = network.head_gives_scores or (network.head == "large_fov" and not has_fc6)
    if network.decoder != "none" and ends_in_scores:
        raise DeepLabError(
            f"decoder={network.decoder!r} requires features, but head={network.head!r} outputs "
            "scores here; use decoder='none', or head='aspp' with fusion='concat'"
        )


def _check_preprocessing(network: Architecture) -> None:
    channels, own = network.in_channels, (network.pixel_mean, network.pixel_std)
    if not any(own):
        if network.preprocessing in RGB_PREPROCESSINGS and not network.takes_rgb:
            raise DeepLabError(
                f"preprocessing={network.preprocessing!r} requires RGB images, but in_channels="
                f"{channels} and image_dtype={network.image_dtype!r}; give preprocessing="
                "'minus_one_one' or 'none', or 'mean_std' with pixel_mean and pixel_std"
            )
    elif {len(values) for values in own} != {channels}:
        raise DeepLabError(
            f"pixel_mean has {len(own[0])} numbers and pixel_std {len(own[1])}, but in_channels="
            f"{channels}; give one of each for every channel, or neither"
        )


def _check_rates(network: Architecture) -> None:
    head, rates = network.head, network.atrous_rates
    if network.fusion == "sum" and head != "aspp":
        raise DeepLabError(
            f"fusion='sum' requires head='aspp', but head={head!r}; leave fusion unset, or use "
            "head='aspp'"
        )
    if network.fusion == "sum" and not rates:
        raise DeepLabError("fusion='sum' requires at least one rate, but atrous_rates=()")
    if rates and head not in ATROUS_HEADS:
        raise DeepLabError(
            f"atrous_rates={rates} has no effect with head={head!r}; use head="
            f"{' or '.join(map(repr, ATROUS_HEADS))}, or leave atrous_rates unset"
        )
    if head == "large_fov" and len(rates) != 1:
        raise DeepLabError(
            f"head='large_fov' requires exactly one atrous rate, but atrous_rates={rates}"
        )


@dataclasses.dataclass(frozen=True)
class Shorthands:
    """Keywords of `create_model` and of the config that set several fields of `Architecture`."""

    architecture: str = keyword(
        "deeplab_v3plus", "Name of the architecture, as `deeplab-jax models` lists it."
    )
    aspp: str | None = keyword(
        None,
        "Atrous rates of DeepLab v2 by name: `small` (2, 4, 8, 12) or `large` (6, 12, 18, 24) at "
        "output stride 8, in proportion at other strides.",
        source="DeepLab v2, section 4.1.2",
        legal=("small", "large"),
    )


KEYWORDS = (*(field.name for field in dataclasses.fields(Architecture)), "aspp")
TORCHVISION = {
    "output_stride": 8,
    "dropout_rate": 0.5,
    "refine": True,
    "aux_head": True,
    "stride_placement": "torchvision",
    "align_corners": False,
    "preprocessing": "mean_std",
    "batch_norm_decay": 0.9,
}
# Keywords that each architecture sets, unless the caller sets them.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "deeplab_v1": {
        "backbone": "vgg_16",
        "output_stride": 8,
        "head": "large_fov",
        "image_pooling": "none",
        "dropout_rate": 0.5,
    },
    "deeplab_v2": {
        "backbone": "resnet_101",
        "output_stride": 8,
        "image_pooling": "none",
        "dropout_rate": 0.5,
    },
    "deeplab_v3": {"backbone": "resnet_101_beta"},
    "deeplab_v3plus": {"backbone": "xception_65", "decoder": "v3plus"},
    "torchvision/deeplabv3_resnet50": TORCHVISION | {"backbone": "resnet_50"},
    "torchvision/deeplabv3_resnet101": TORCHVISION | {"backbone": "resnet_101"},
    "torchvision/deeplabv3_mobilenet_v3_large": TORCHVISION
    | {"backbone": "mobilenet_v3_large", "output_stride": 16},
}
# Keywords that each backbone uses. The networks are in deeplab_jax/backbones/entries.py, in the
# same order.
_RESNET = ("multi_grid", "stride_placement", "rate_start", "cascade_blocks", "stochastic_depth")
_TIMM_RESNET = ("multi_grid", "rate_start", "cascade_blocks", "stochastic_depth")
_CONVNEXT_SMALL = ("atto", "femto", "pico", "nano")
_EFFICIENTNETS = (
    *(f"efficientnet_b{size}" for size in range(5)),
    *(f"efficientnet_lite{size}" for size in range(5)),
    *("efficientnetv2_s", "efficientnetv2_m"),
)
BACKBONE_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "vgg_16": (),
    **{f"resnet_{depth}": _RESNET for depth in (18, 50, 101)},
    **{f"resnet_{depth}_beta": _RESNET for depth in (18, 50, 101)},
    **{f"xception_{depth}": () for depth in (41, 65, 71)},
    "mobilenet_v2": (
        *("depth_multiplier", "width_divisor", "stride_placement", "rate_start"),
        *("last_convolution", "pad_first_convolution", "pad_before_expansion"),
    ),
    **{
        f"mobilenet_v3_{form}": ("depth_multiplier", "stride_placement")
        for form in ("large", "large_seg", "small", "small_seg")
    },
    **{f"timm/{name}": _TIMM_RESNET for name in ("resnet34", "resnet152")},
    **{f"timm/resnet{depth}c": _TIMM_RESNET for depth in (50, 101)},
    **{f"timm/resnet{depth}d": _TIMM_RESNET for depth in (18, 34, 50, 101)},
    "timm/resnext50_32x4d": _TIMM_RESNET,
    **{
        f"timm/{name}": ("stochastic_depth",)
        for name in (
            *(f"convnext_{size}" for size in (*_CONVNEXT_SMALL, "tiny", "small", "base")),
            *(f"convnextv2_{size}" for size in (*_CONVNEXT_SMALL, "tiny", "base")),
            *(f"regnety_{size}" for size in ("002", "008", "016", "040", "080", "160")),
        )
    },
    **{
        f"timm/{name}": ("rate_start", "stochastic_depth")
        for name in (
            *_EFFICIENTNETS,
            *(f"tf_{name}" for name in _EFFICIENTNETS),
            *(
                f"mobilenetv4_conv_{size}"
                for size in ("small_035", "small_050", "small", "medium", "large")
            ),
        )
    },
}
SUMMARIES = {
    "deeplab_v1": "VGG-16 with a large field of view (arXiv 1412.7062)",
    "deeplab_v2": "ASPP as a sum of scores (arXiv 1606.00915)",
    "deeplab_v3": "ASPP with concatenation and image pooling, or a cascade (arXiv 1706.05587)",
    "deeplab_v3plus": "DeepLab v3 with a decoder (arXiv 1802.02611)",
    "torchvision/deeplabv3_resnet50": "DeepLab v3 in torchvision's conventions",
    "torchvision/deeplabv3_resnet101": "the same on ResNet-101",
    "torchvision/deeplabv3_mobilenet_v3_large": "the same on MobileNetV3",
}


def check_names(architecture: str, overrides: Mapping[str, Any]) -> None:
    """Checks that an architecture and all keywords given for it exist.

    Raises:
      DeepLabError: a name is unknown; the message suggests the nearest one.
    """
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    for name in overrides:
        if name not in KEYWORDS:
            raise unknown_field(f"keyword of {architecture}", name, KEYWORDS, MODEL)


def list_models() -> dict[str, str]:
    """Returns a one-line summary of every architecture, by name."""
    return dict(SUMMARIES)
