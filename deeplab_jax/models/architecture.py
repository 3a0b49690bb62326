"""Architecture: a DeepLab as plain values, and which values are legal together."""

import dataclasses
from collections.abc import Callable
from typing import Any

from deeplab_jax.backbones import STRIDE_PLACEMENTS, BackboneEntry, find_backbone
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models.preprocessing import PREPROCESSINGS, RGB_PREPROCESSINGS, mean_pixel

LEGAL = {
    "head": ("large_fov", "aspp", "cascade", "pooling", "plain", "spp", "lr_aspp", "dpc"),
    "fusion": ("concat", "sum"),
    "fov": ("large", "4x4", "7x7"),
    "cascade_blocks": (4, 5, 6, 7),
    "width_divisor": (1, 8),
    "decoder": ("none", "v3plus", "conv2_conv3", "msc"),
    "image_pooling": ("none", "crop", "global"),
    "stride_placement": STRIDE_PLACEMENTS,
    "preprocessing": PREPROCESSINGS,
    "quantization": ("none", "int8"),
    "dtype": ("float32", "bfloat16", "float64"),
}


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _all_positive(values: Any) -> bool:
    return isinstance(values, tuple) and all(map(_positive, values))


def _all_different(rates: Any) -> bool:
    return _all_positive(rates) and len(set(rates)) == len(rates)


def _all_pairs(values: Any) -> bool:
    return isinstance(values, tuple) and all(_all_positive(v) and len(v) == 2 for v in values)


def _named_widths(values: Any) -> bool:
    pairs = isinstance(values, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in values
    )
    return pairs and all(isinstance(path, str) and _positive(width) for path, width in values)


def _fusable(scales: Any) -> bool:
    if not isinstance(scales, tuple):
        return False
    return not scales or (scales[0] == 1 and all(0 < scale <= 1 for scale in scales))


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1


WHOLE, WHOLES = "a whole number of at least 1", "whole numbers of at least 1"
# What a value must be, as a test and in words.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (_positive, WHOLE),
    "in_channels": (_positive, WHOLE),
    "aspp_channels": (_positive, WHOLE),
    "low_level_channels": (_positive, WHOLE),
    "fc_channels": (lambda value: value == 0 or _positive(value), "a whole number"),
    "batch_norm_group": (lambda value: value == 0 or _positive(value), "a whole number"),
    "pooling_crop": (lambda size: _all_positive(size) and len(size) == 2, "a height and a width"),
    "multi_scale": (_fusable, "sizes in (0, 1], 1 first, as in (1, 0.75, 0.5)"),
    "atrous_rates": (_all_different, f"different {WHOLES}"),
    "multi_grid": (lambda rates: rates is None or _all_positive(rates), WHOLES),
    "decoder_convs": (
        _all_pairs,
        "pairs of kernel size and channels, as in ((3, 256), (3, 256))",
    ),
    "widths": (
        _named_widths,
        "pairs of a layer's path and its channels, as in (('backbone/layer_3/expand', 72),)",
    ),
    "dropout_rate": (_share, "in [0, 1)"),
    "depth_multiplier": (
        lambda factor: isinstance(factor, int | float) and factor > 0,
        "a number above 0",
    ),
    "batch_norm_epsilon": (
        lambda epsilon: epsilon is None or (isinstance(epsilon, int | float) and epsilon > 0),
        "a number above 0",
    ),
    "batch_norm_decay": (lambda decay: decay is None or _share(decay), "in [0, 1)"),
}


def check_value(field: str, value: Any) -> None:
    """Checks one field by itself.

    Raises:
      DeepLabError: the value is illegal; says what would be legal.
    """
    undecided = field == "stride_placement" and value is None
    if field in LEGAL and not undecided and value not in LEGAL[field]:
        legal = LEGAL[field]
        if isinstance(value, str) and isinstance(legal[0], str):
            raise unknown_name(field, value, legal)
        shown = ", ".join(map(str, legal))
        raise DeepLabError(f"{field}={value!r} is not legal; legal: {shown}")
    if field in RULES:
        legal, words = RULES[field]
        if not legal(value):
            raise DeepLabError(f"{field}={value!r} must be {words}")


# Others have no atrous convolutions, or (DPC's cell) rates that are part of what they are.
ATROUS_HEADS = ("aspp", "large_fov")


def check_combination(options: "Architecture") -> None:
    """Checks the fields against each other and against what the backbone can do.

    Raises:
      DeepLabError: two of them contradict; says which and what to change.
    """
    entry = find_backbone(options.backbone)
    if options.in_channels != 3 and options.preprocessing in RGB_PREPROCESSINGS:
        raise DeepLabError(
            f"preprocessing={options.preprocessing!r} is of RGB images, but in_channels="
            f"{options.in_channels}; give preprocessing='minus_one_one' or 'none'"
        )
    _check_backbone(options, entry)
    _check_output_stride(options)
    _check_head(options)


def _check_backbone(options: "Architecture", entry: BackboneEntry) -> None:
    size = entry.multi_grid_size
    if options.multi_grid is not None and size == 0:
        raise DeepLabError(
            f"{options.backbone} has no multi-grid: that needs a ResNet's block4; "
            "leave multi_grid unset"
        )
    if options.multi_grid is not None and len(options.multi_grid) != size:
        raise DeepLabError(f"multi_grid={options.multi_grid} must hold {size} rates")
    if options.depth_multiplier != 1 and "depth_multiplier" not in entry.options:
        raise DeepLabError(f"{options.backbone} has no depth_multiplier; leave it at 1.0")
    if options.width_divisor != 1 and "width_divisor" not in entry.options:
        raise DeepLabError(f"{options.backbone} has no width_divisor; leave it at 1")
    if options.scan_units and "scan_units" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} has too few units that are alike to compile them as a loop; leave "
            "scan_units unset, or take a ResNet or an Xception"
        )
    if options.stride_placement and "stride_placement" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} has its strides in one place only; leave stride_placement unset"
        )


def _check_output_stride(options: "Architecture") -> None:
    if (
        options.head == "cascade"
        and "cascade_blocks" not in find_backbone(options.backbone).options
    ):
        raise DeepLabError(
            f"{options.backbone} has no cascade: that repeats a ResNet's block4; give "
            "head='aspp' or a ResNet"
        )
    if options.head != "cascade" and options.cascade_blocks > 4:
        raise DeepLabError(
            f"cascade_blocks={options.cascade_blocks} needs head='cascade', not {options.head!r}"
        )
    legal = [2**power for power in range(2, options.cascade_blocks + 2)]
    if options.output_stride not in legal:
        shown = ", ".join(map(str, legal))
        raise DeepLabError(f"output_stride={options.output_stride!r} is not legal; legal: {shown}")


def _check_head(options: "Architecture") -> None:
    if options.fusion == "sum" and options.head != "aspp":
        raise DeepLabError(
            f"fusion='sum' is ASPP's; head={options.head!r} has nothing to add up; leave fusion "
            "unset, or give head='aspp'"
        )
    if options.fusion == "sum" and not options.atrous_rates:
        raise DeepLabError("atrous_rates=() leaves fusion='sum' nothing to add up; give a rate")
    if options.atrous_rates and options.head not in ATROUS_HEADS:
        raise DeepLabError(
            f"atrous_rates={options.atrous_rates} are of the head's atrous convolutions, but "
            f"head={options.head!r} has none that take them; give one of "
            f"{', '.join(map(repr, ATROUS_HEADS))}, or leave atrous_rates out"
        )
    if options.head == "large_fov" and len(options.atrous_rates) != 1:
        raise DeepLabError(f"head='large_fov' takes one rate, not {options.atrous_rates}")
    if options.fov != "large" and (options.head != "large_fov" or not options.fc_channels):
        raise DeepLabError(
            f"fov={options.fov!r} is the kernel of fc6, which only head='large_fov' with "
            "fc_channels has; leave fov unset"
        )
    if options.decoder == "none":
        return
    if options.head_gives_scores or (options.head == "large_fov" and not options.fc_channels):
        raise DeepLabError(
            f"decoder={options.decoder!r} refines features, but head={options.head!r} ends in "
            "scores here; give decoder='none', or head='aspp' with fusion='concat'"
        )


# ASPP's rates keep their extent in the image: they double when the output stride halves.
RATES_AT_16 = (6, 12, 18)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A DeepLab, fully decided.

    Attributes:
      backbone: name in the catalog of backbones.
      num_classes: number of logits a pixel.
      in_channels: of the image.
      output_stride: pixels of the image to one of the encoder's map.
      head: `large_fov` (v1), `aspp`, `cascade`, `pooling` (image pooling and 1×1), `plain` (the
        classifier alone), `spp`, `lr_aspp` or `dpc`.
      fusion: how ASPP joins its branches: `sum` of scores (v2) or `concat` of features (v3).
      fov: kernel of fc6: `7x7`, `4x4` or `large` (3×3).
      fc_channels: of fc6 and fc7; 0: the head's atrous convolutions are classifiers themselves.
      atrous_rates: of the head's atrous convolutions, in pixels of the encoder's map.
      multi_grid: relative rates of a ResNet's block4; None for all 1.
      cascade_blocks: a ResNet's last block; above 4 those of the cascade.
      image_pooling: `none`, `crop` (average over the map of a crop) or `global`.
      pooling_crop: height and width in pixels of the crop that `crop` means.
      aspp_channels: of every branch and the projection.
      dropout_rate: after the projection; after fc6 and fc7.
      decoder: `none`, `v3plus`, `conv2_conv3` or `msc` (DeepLab-MSc).
      low_level_channels: the decoder's reduced low-level features.
      decoder_convs: (kernel size, channels) of the decoder's refining convolutions.
      separable: depthwise separable ASPP branches and decoder convolutions.
      refine: a 3×3 convolution before the classifier, as torchvision has.
      multi_scale: sizes of the image, relative, whose scores are fused by their maximum.
      depth_multiplier: scales the widths of a MobileNet.
      width_divisor: of MobileNetV2's scaled widths: 1, or 8 as in slim's classifiers.
      aux_head: a second classifier on an inner map, to help training.
      stride_placement: `slim`, `caffe` or `torchvision`; None for a backbone without the choice.
      align_corners: convention of every resize.
      preprocessing: normalisation of the pixels.
      batch_norm_decay: of every moving average; None for each part's published one.
      batch_norm_epsilon: added to the variances in the backbone; None for its published one.
      frozen_batch_norm: training uses and keeps the moving averages (DeepLab v3, section 4.1).
      batch_norm_group: images that training normalises together; 0: the whole batch.
      scan_units: the backbone's units that are alike are compiled once, as the body of a loop;
        the names of variables and the results do not change.
      widths: (path, output channels) of layers that structured pruning made narrower, as in
        `backbone/layer_3/expand`; what follows such a layer follows its width.
      quantization: `none`, or `int8`: convolutions in 8-bit integers, for inference alone.
      dtype: of the computation; float64 needs jax_enable_x64 and is for numerical checks.
    """

    backbone: str
    num_classes: int = 21
    in_channels: int = 3
    output_stride: int = 16
    head: str = "aspp"
    fusion: str = "concat"
    fov: str = "large"
    fc_channels: int = 0
    atrous_rates: tuple[int, ...] = RATES_AT_16
    multi_grid: tuple[int, ...] | None = None
    cascade_blocks: int = 4
    image_pooling: str = "global"
    pooling_crop: tuple[int, int] = (513, 513)
    aspp_channels: int = 256
    dropout_rate: float = 0.1
    decoder: str = "none"
    low_level_channels: int = 48
    decoder_convs: tuple[tuple[int, int], ...] = ((3, 256), (3, 256))
    separable: bool = False
    refine: bool = False
    multi_scale: tuple[float, ...] = ()
    depth_multiplier: float = 1.0
    width_divisor: int = 1
    aux_head: bool = False
    stride_placement: str | None = None
    align_corners: bool = True
    preprocessing: str = "minus_one_one"
    batch_norm_decay: float | None = None
    batch_norm_epsilon: float | None = None
    frozen_batch_norm: bool = False
    batch_norm_group: int = 0
    scan_units: bool = False
    widths: tuple[tuple[str, int], ...] = ()
    quantization: str = "none"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field.name, getattr(self, field.name))
        check_combination(self)

    @property
    def head_gives_scores(self) -> bool:
        """Whether the head ends in classifiers of its own."""
        return self.head == "lr_aspp" or (self.head == "aspp" and self.fusion == "sum")

    @property
    def pooling_window(self) -> tuple[int, int] | None:
        """Rows and columns of the encoder's map that image pooling averages; None for all."""
        if self.image_pooling != "crop":
            return None
        return tuple((side - 1) // self.output_stride + 1 for side in self.pooling_crop)

    @property
    def mean_pixel(self) -> tuple[int, ...]:
        """Pixel, a value for each channel, that stands outside of images; see `mean_pixel`."""
        return mean_pixel(self.preprocessing, self.in_channels)

    def describe(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return dataclasses.asdict(self)


def scaled_rates(output_stride: int) -> tuple[int, ...]:
    """Returns ASPP's default rates: (6, 12, 18) at output stride 16, in proportion elsewhere."""
    return tuple(rate * 16 // output_stride for rate in RATES_AT_16)
