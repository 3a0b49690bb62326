"""Keywords of `create_model`: type, default, legal values, unit and source of each.

This module imports neither JAX nor Flax, so commands that only check values are fast.
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
    NAME,
    NUMBERS,
    OUTPUT_STRIDE,
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
        rule=NAME,
        shown_default="`vgg_16` in v1, `resnet_101` in v2, `resnet_101_beta` in v3, `xception_65` "
        "in v3+",
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
        rule=OUTPUT_STRIDE,
        shown_default="8 in v1, in v2 and in torchvision's two networks on ResNets; else 16",
    )
    head: str = keyword(
        "aspp",
        "Head: `large_fov` (v1), `aspp`, `cascade`, `pooling` (image pooling and a 1×1 "
        "convolution), `plain` (only the classifier), `spp` (spatial pyramid pooling), `lr_aspp` "
        "(lite reduced ASPP of MobileNetV3) or `dpc` (dense prediction cell).",
        legal=("large_fov", "aspp", "cascade", "pooling", "plain", "spp", "lr_aspp", "dpc"),
        shown_default="`large_fov` in v1; in v3 `pooling` on `mobilenet_v2` and `lr_aspp` on "
        "`mobilenet_v3_…_seg`; else `aspp`",
    )
    fusion: str = keyword(
        "concat",
        "Fusion of the ASPP branches: sum of their scores (`sum`, v2) or concatenation of their "
        "features (`concat`, v3).",
        legal=("concat", "sum"),
        shown_default="`sum` in v2, else `concat`",
    )
    fov: str = keyword(
        "large",
        "Kernel size of fc6, the atrous convolution of LargeFOV: `7x7`, `4x4` or `large` (3×3).",
        source="DeepLab v2, table 1",
        legal=("large", "4x4", "7x7"),
    )
    fc_channels: int = keyword(
        0,
        "Number of output channels of fc6 and fc7, the convolutions before the classifier in "
        "`large_fov` and in `aspp` with `fusion=sum`; 0: the head has no fc6 and fc7, and "
        "its classifiers are atrous convolutions.",
        source="DeepLab v2, table 1",
        rule=COUNT,
        shown_default="1024 for `fov=large`, 4096 for other `fov`; 0 in v2, except on VGG-16",
    )
    atrous_rates: tuple[int, ...] = keyword(
        RATES_AT_16,
        "Atrous rates of the convolutions in the head.",
        unit="pixels of the encoder output",
        source="DeepLab v3, section 3.3; v2, section 4.1.2",
        rule=DIFFERENT_POSITIVES,
        shown_default="with `fusion=sum`: (6, 12, 18, 24) at output stride 8; with `large_fov`: "
        "12 at output stride 8 (4 for `fov=4x4` and `7x7`); in torchvision's networks: "
        "(12, 24, 36) at their default output stride; else: (6, 12, 18) at output stride 16. If "
        "the output stride is halved, the rates are doubled.",
    )
    multi_grid: tuple[int, ...] | None = keyword(
        None,
        "Atrous rate of each unit in a block, relative to the rate of the block; for block4 to "
        "block7 of a ResNet.",
        source="DeepLab v3, section 3.2.1",
        rule=POSITIVES,
        shown_default="all 1; in the recipes of v3 and v3+ (1, 2, 4)",
    )
    cascade_blocks: int = keyword(
        4,
        "Number of blocks of a ResNet: 4, or 5 to 7 with a cascade.",
        source="DeepLab v3, section 3.2",
        legal=(4, 5, 6, 7),
        shown_default="7 with `head=cascade`, else 4",
    )
    image_pooling: str = keyword(
        "global",
        "Image pooling: `none`, `crop` (average over windows that correspond to the training crop, "
        "as in the released networks) or `global`. The heads `spp` and `lr_aspp` always pool.",
        source="DeepLab v3, section 3.3",
        legal=("none", "crop", "global"),
        shown_default="`none` in v1, in v2 and for heads that do not pool; else `global`",
    )
    pooling_crop: tuple[int, int] = keyword(
        (513, 513),
        "Height and width of the training crop, for `image_pooling=crop`.",
        unit="pixels",
        rule=SIZE,
        shown_default="the training crop",
    )
    aspp_channels: int = keyword(
        256,
        "Number of output channels of every ASPP branch and of the projection.",
        rule=POSITIVE,
        shown_default="128 with `lr_aspp`, else 256",
    )
    projection_size: int = keyword(
        1,
        "Kernel size of the projection after the concatenation of the ASPP branches: 1 or 3.",
        legal=(1, 3),
        source="3: mmsegmentation",
    )
    dropout_rate: float = keyword(
        0.1,
        "Fraction of features that dropout sets to 0 in training, after the projection of the head "
        "(with `dpc`: before the projection) or after fc6 and fc7.",
        rule=FRACTION,
        shown_default="0.5 in v1, in v2 with fc6 and fc7, and in torchvision's networks; 0 in "
        "heads without dropout; else 0.1",
    )
    decoder: str = keyword(
        "none",
        "Decoder: `none`, `v3plus`, `conv2_conv3` (two decoders of v3+ in sequence, the second on "
        "finer features) or `msc` (DeepLab-MSc).",
        source="DeepLab v3+, section 3.1",
        legal=("none", "v3plus", "conv2_conv3", "msc"),
        shown_default="`v3plus` in v3+, else `none`",
    )
    low_level_channels: int = keyword(
        48,
        "Number of channels to which the decoder reduces the low-level features.",
        rule=POSITIVE,
    )
    decoder_convs: tuple[tuple[int, int], ...] = keyword(
        ((3, 256), (3, 256)),
        "Kernel size and number of output channels of each convolution of the decoder, after the "
        "concatenation with the low-level features.",
        rule=CONVOLUTIONS,
        shown_default="((3, 256),) with `conv2_conv3`, else ((3, 256), (3, 256))",
    )
    decoder_dropout: tuple[float, ...] = keyword(
        (),
        "Fraction of features that dropout sets to 0 in training, after each convolution of the "
        "decoder; (): no dropout.",
        rule=FRACTIONS,
        source="pytorch-deeplab-xception",
    )
    low_level_source: str = keyword(
        "convolution",
        "Source of the low-level features of the decoder. `block`: the output of a block; "
        "`convolution`: the output of a convolution inside a block. In a ResNet, this convolution "
        "is the last one of a unit, before the shortcut is added; in MobileNetV2, it is a "
        "depthwise convolution. In a ResNet with `stride_placement=slim`, a block ends with a "
        "stride, so its output has half the height and width of the convolution.",
        legal=LOW_LEVEL_SOURCES,
        source="`convolution`: as released; `block`: PyTorch codebases",
    )
    separable: bool = keyword(
        False,
        "Depthwise separable convolutions in the ASPP branches and the decoder.",
        source="DeepLab v3+, section 3.1",
        shown_default="True in v3+ on Xception, else False",
    )
    separable_norm: bool = keyword(
        True,
        "Batch normalization and ReLU between the depthwise and the 1×1 convolution of the "
        "separable convolutions in ASPP and decoder.",
        source="segmentation_models.pytorch uses False",
    )
    refine_encoder: bool = keyword(
        False,
        "Additional 3×3 convolution between the head and the decoder. It is depthwise separable if "
        "the keyword `separable` is True.",
        source="segmentation_models.pytorch",
    )
    refine: bool = keyword(
        False,
        "Additional 3×3 convolution before the classifier.",
        shown_default="True in torchvision's networks, else False",
    )
    multi_scale: tuple[float, ...] = keyword(
        (),
        "Scale factors of the input image, 1 first. The scores at all scales are fused by their "
        "maximum. (): only the original image.",
        source="DeepLab v2, section 4.1.1",
        rule=SCALES,
    )
    depth_multiplier: float = keyword(
        1.0, "Multiplier of the number of channels of every MobileNet layer.", rule=ABOVE_ZERO
    )
    width_divisor: int = keyword(
        1,
        "Rounding of the channel numbers of MobileNetV2 after `depth_multiplier` is applied. 1: "
        "the numbers are rounded down to whole numbers, whereas the released code rounds them to "
        "the nearest whole number; 8: the numbers are rounded to multiples of 8, as in slim's "
        "image classifiers.",
        legal=(1, 8),
    )
    stochastic_depth: float = keyword(
        0.0,
        "Probability of dropping the last residual branch of a ResNet or `timm/` backbone in "
        "training; the probability rises linearly from 0 at the first branch.",
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
        "Padding of the image before the first convolution of MobileNetV2; False: no padding.",
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
        shown_default="True in torchvision's networks, else False",
    )
    stride_placement: str | None = keyword(
        None,
        "Convolution that has the stride between two consecutive blocks A and B of a ResNet. "
        "`slim`: the 3×3 convolution in the last unit of A; `caffe`: the first convolution in "
        "the first unit of B; `torchvision`: the 3×3 convolution in the first unit of B. On a "
        "MobileNet, this keyword determines only the padding, which is symmetric with "
        "`torchvision`, and otherwise like `SAME` in TensorFlow.",
        legal=STRIDE_PLACEMENTS,
        shown_default="`caffe` in v2 on ResNets, `torchvision` in torchvision's networks, else "
        "`slim`",
    )
    rate_start: str = keyword(
        "next_unit",
        "Units that have the new atrous rate if a rate replaces the stride of a unit u. "
        "`same_unit`: u and all later units; `next_unit`: all units after u; `next_stage`: all "
        "units from the next stage on; `first_units`: only u and the first unit of every later "
        "stage. On a ResNet, each convolution counts as a unit.",
        legal=RATE_STARTS,
        source="`next_unit`: slim, torchvision; `same_unit`: segmentation_models.pytorch; "
        "`next_stage`, `first_units`: MobileNetV2 of pytorch-deeplab-xception and mmsegmentation",
    )
    align_corners: bool = keyword(
        True,
        "Resizing that aligns the centers of the corner pixels; False: half-pixel centers.",
        shown_default="False in torchvision's networks and on ConvNeXt, else True",
    )
    multiple_of_stride: bool = keyword(
        False,
        "Legal input sides with `align_corners=True`: k·output_stride pixels (True), or "
        "k·output_stride + 1 pixels (False), where k is a whole number.",
        source="segmentation_models.pytorch",
    )
    preprocessing: str = keyword(
        "minus_one_one",
        "Normalization of the input pixels: `minus_one_one` (to −1..1), `mean` (minus the mean "
        "color of the released code), `vgg_mean` (minus the mean color of slim's VGG), `caffe_bgr` "
        "(in BGR order, minus the mean color of Caffe), `mean_std` (minus `pixel_mean`, divided by "
        "`pixel_std`) or `none`.",
        legal=PREPROCESSINGS,
        shown_default="that of the backbone; `mean_std` for images other than 8-bit RGB",
    )
    pixel_mean: tuple[float, ...] = keyword(
        (),
        "Mean of each channel, for `preprocessing=mean_std`; (): mean of ImageNet, for 8-bit RGB.",
        unit="pixel values",
        rule=NUMBERS,
        shown_default="that of the dataset for images other than 8-bit RGB, else ()",
    )
    pixel_std: tuple[float, ...] = keyword(
        (),
        "Standard deviation of each channel, for `preprocessing=mean_std`; (): that of ImageNet, "
        "for 8-bit RGB.",
        unit="pixel values",
        rule=ABOVE_ZEROS,
        shown_default="that of the dataset for images other than 8-bit RGB, else ()",
    )
    batch_norm_decay: float | None = keyword(
        None,
        "Decay of the moving averages of batch normalization, per microbatch (per training step "
        "without `training.accumulation_steps`).",
        rule=FRACTION,
        shown_default="as published for each part, 0.9 to 0.9997",
    )
    batch_norm_epsilon: float | None = keyword(
        None,
        "Constant that batch normalization in the backbone adds to the variance.",
        rule=ABOVE_ZERO,
        shown_default="that of the backbone",
    )
    frozen_batch_norm: bool = keyword(
        False,
        "Frozen batch normalization: training uses the moving averages and does not update them.",
        source="DeepLab v3, section 4.1",
    )
    ghost_batch_size: int = keyword(
        0,
        "Number of images over which batch normalization computes statistics in training; 0: all "
        "images of a microbatch (of a batch without `training.accumulation_steps`).",
        unit="images",
        rule=COUNT,
    )
    widths: tuple[tuple[str, int], ...] = keyword(
        (),
        "Path and number of output channels of each layer in which this number differs from the "
        "default of the architecture. `prune` sets this keyword, and `convert` sets it for "
        "MobileNetV2 of the released code with a depth multiplier such as 0.35 (see "
        "`width_divisor`).",
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
        "Dtype of the computation. Parameters and statistics are float32, or float64 with "
        "float64, which requires jax_enable_x64 and is for numerical checks.",
        legal=("float32", "bfloat16", "float64"),
    )


@dataclasses.dataclass(frozen=True)
class Shorthands:
    """Keywords from which `create_model` and the config derive the values of other keywords."""

    architecture: str = keyword(
        "deeplab_v3plus", "Name of the architecture, as `deeplab-jax models` lists it."
    )
    aspp: str | None = keyword(
        None,
        "Set of atrous rates of DeepLab v2: `small` (2, 4, 8, 12) or `large` (6, 12, 18, 24). "
        "These rates apply at output stride 8; if the output stride is halved, they are doubled.",
        source="DeepLab v2, section 4.1.2",
        legal=("small", "large"),
    )


KEYWORDS = (*(field.name for field in dataclasses.fields(ArchitectureFields)), "aspp")
