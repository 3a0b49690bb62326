"""Which values the fields of an architecture may have."""

from collections.abc import Callable
from typing import Any

from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models.preprocessing import PREPROCESSINGS

LEGAL = {
    "head": ("aspp", "pooling", "plain"),
    "decoder": ("none", "v3plus"),
    "image_pooling": ("none", "global"),
    "preprocessing": PREPROCESSINGS,
    "output_stride": (4, 8, 16, 32),
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


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1


WHOLE, WHOLES = "a whole number of at least 1", "whole numbers of at least 1"
# What a value must be, as a test and in words.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (_positive, WHOLE),
    "in_channels": (_positive, WHOLE),
    "aspp_channels": (_positive, WHOLE),
    "low_level_channels": (_positive, WHOLE),
    "atrous_rates": (_all_different, f"different {WHOLES}"),
    "multi_grid": (lambda rates: rates is None or _all_positive(rates), WHOLES),
    "decoder_convs": (
        _all_pairs,
        "pairs of kernel size and channels, as in ((3, 256), (3, 256))",
    ),
    "dropout_rate": (_share, "in [0, 1)"),
    "depth_multiplier": (
        lambda factor: isinstance(factor, int | float) and factor > 0,
        "a number above 0",
    ),
    "batch_norm_decay": (lambda decay: decay is None or _share(decay), "in [0, 1)"),
}


def check_value(field: str, value: Any) -> None:
    """Checks one field by itself.

    Raises:
      DeepLabError: the value is illegal; says what would be legal.
    """
    if field in LEGAL and value not in LEGAL[field]:
        legal = LEGAL[field]
        if isinstance(value, str) and isinstance(legal[0], str):
            raise unknown_name(field, value, legal)
        shown = ", ".join(map(str, legal))
        raise DeepLabError(f"{field}={value!r} is not legal; legal: {shown}")
    if field in RULES:
        legal, words = RULES[field]
        if not legal(value):
            raise DeepLabError(f"{field}={value!r} must be {words}")
