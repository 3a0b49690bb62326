"""Keywords of `create_model`: type, default, legal values, unit and source of each.

This module imports neither JAX nor Flax, so that commands check values quickly.
"""

import dataclasses

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
    keyword,
)
from deeplab_jax.pixels import LARGEST_PIXEL, PREPROCESSINGS

STRIDE_PLACEMENTS = ("slim", "caffe", "torchvision")
RATE_STARTS = ("next_unit", "same_unit", "next_stage", "first_units")
LOW_LEVEL_SOURCES = ("convolution", "block")
# ASPP rates at output stride 16. They double when the output stride halves, so that the kernels
# cover the same part of the image.
RATES_AT_16 = (6, 12, 18)


@dataclasses.dataclass(frozen=True)
class ArchitectureFields:
    """Keywords of `create_model`; `Architecture` adds the checks of their values."""

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


@dataclasses.dataclass(frozen=True)
class Shorthands:
    """Keywords of `create_model` and of the config that set other keywords."""

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


KEYWORDS = (*(field.name for field in dataclasses.fields(ArchitectureFields)), "aspp")
