"""Which values the fields of an architecture may have."""

from collections.abc import Callable
from typing import Any

from deeplab_jax.backbones import STRIDE_PLACEMENTS
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models.preprocessing import PREPROCESSINGS

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
