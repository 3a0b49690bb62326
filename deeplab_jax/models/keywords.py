"""Keywords that each part of a network reads, and values of those that no part reads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from deeplab_jax.architecture import Architecture
from deeplab_jax.backbones import BACKBONES, find_backbone
from deeplab_jax.errors import DeepLabError

BATCH_NORM = ("frozen_batch_norm", "batch_norm_decay", "ghost_batch_size")
FIELDS = Architecture.__dataclass_fields__


class Part(NamedTuple):
    """A part of a network and the keywords that it reads.

    Attributes:
      name: name of the part, expressed by the keywords that select it.
      present: predicate of architectures that have the part.
      reads: keywords that change the part.
    """

    name: str
    present: Callable[[Architecture], bool]
    reads: tuple[str, ...]


def _has_summed_aspp(options: Architecture) -> bool:
    return options.head == "aspp" and options.fusion == "sum"


def _has_concatenated_aspp(options: Architecture) -> bool:
    return options.head == "aspp" and options.fusion == "concat"


def _has_fully_connected_layers(options: Architecture) -> bool:
    return options.fc_channels > 0 and (options.head == "large_fov" or _has_summed_aspp(options))


def _refines_with_convolutions(options: Architecture) -> bool:
    return options.decoder in ("v3plus", "conv2_conv3") and bool(options.decoder_convs)


# Backbones read the options of `backbones.entries` and those of batch normalization.
PARTS = (
    Part(
        "every network",
        lambda options: True,
        (
            *("backbone", "num_classes", "in_channels", "output_stride", "head", "decoder"),
            *("multi_scale", "aux_head", "align_corners", "preprocessing", "widths"),
            *("quantization", "dtype"),
        ),
    ),
    Part(
        "head='large_fov'",
        lambda options: options.head == "large_fov",
        ("fc_channels", "atrous_rates"),
    ),
    Part(
        "head='large_fov' with fc_channels",
        lambda options: options.head == "large_fov" and options.fc_channels > 0,
        ("fov",),
    ),
    Part(
        "head='aspp'",
        lambda options: options.head == "aspp",
        ("fusion", "atrous_rates"),
    ),
    Part("head='aspp' with fusion='sum'", _has_summed_aspp, ("fc_channels",)),
    Part(
        "head='large_fov', or 'aspp' with fusion='sum', with fc_channels",
        _has_fully_connected_layers,
        ("dropout_rate",),
    ),
    Part(
        "head='aspp' with fusion='concat'",
        _has_concatenated_aspp,
        ("image_pooling", "aspp_channels", "dropout_rate", *BATCH_NORM),
    ),
    Part(
        "head='aspp' with fusion='concat' and atrous_rates",
        lambda options: _has_concatenated_aspp(options) and bool(options.atrous_rates),
        ("separable",),
    ),
    Part(
        "head='pooling'",
        lambda options: options.head == "pooling",
        ("image_pooling", "aspp_channels", "dropout_rate", *BATCH_NORM),
    ),
    Part(
        "head='spp' or 'dpc'",
        lambda options: options.head in ("spp", "dpc"),
        ("aspp_channels", "dropout_rate", *BATCH_NORM),
    ),
    Part(
        "head='lr_aspp'",
        lambda options: options.head == "lr_aspp",
        ("image_pooling", "aspp_channels", *BATCH_NORM),
    ),
    Part(
        "image_pooling='crop'",
        lambda options: options.image_pooling == "crop",
        ("pooling_crop",),
    ),
    Part(
        "decoder='v3plus' or 'conv2_conv3'",
        lambda options: options.decoder in ("v3plus", "conv2_conv3"),
        ("low_level_channels", "decoder_convs", *BATCH_NORM),
    ),
    Part(
        "decoder='v3plus' or 'conv2_conv3' with decoder_convs",
        _refines_with_convolutions,
        ("separable",),
    ),
    Part(
        "a head that ends in features",
        lambda options: not options.head_gives_scores,
        ("refine",),
    ),
    Part(
        "refine=True",
        lambda options: options.refine and not options.head_gives_scores,
        ("aspp_channels", *BATCH_NORM),
    ),
    Part("aux_head=True", lambda options: options.aux_head, BATCH_NORM),
)
# Values of unread keywords where they differ from the default of the field.
ABSENT: Mapping[str, Any] = {"image_pooling": "none", "dropout_rate": 0.0, "atrous_rates": ()}
# The first level of SPP, and the gate of LR-ASPP without a window, pool the whole map.
ALWAYS_POOLING = {"spp": ("global",), "lr_aspp": ("global", "crop")}
# On a MobileNet the stride placement only selects the padding.
PADDINGS = ("slim", "torchvision")
# Reasons why a network does not support every value.
ALL_VALUES = {
    "image_pooling": "this head always pools the map",
    "stride_placement": "only ResNets support every stride placement",
}


def read_keywords(options: Architecture) -> frozenset[str]:
    """Returns the keywords that the parts of an architecture read."""
    entry = find_backbone(options.backbone)
    read = set(entry.options)
    if entry.normalization is not None:
        read |= {"batch_norm_epsilon", *BATCH_NORM}
    for part in PARTS:
        if part.present(options):
            read |= set(part.reads)
    # `frozen_batch_norm` does not hide the other two of BATCH_NORM: recipes that set a decay may
    # freeze the statistics as well.
    return frozenset(read)


def settled(options: Architecture, given: Mapping[str, Any]) -> Architecture:
    """Returns the architecture in which keywords that no part reads have fixed values.

    Args:
      options: architecture with the given keywords and all defaults.
      given: keywords of the caller.

    Raises:
      DeepLabError: the backbone does not support a keyword, or given keywords have no effect and
        differ from the fixed value; the message names all of them, the parts that read them, and
        the legal values.
    """
    check_backbone(options)
    absent = absent_values(options)
    wrong = {name: given[name] for name in absent if name in given and given[name] != absent[name]}
    if wrong:
        reasons = "; ".join(_reason(options, name, wrong[name], absent[name]) for name in wrong)
        raise DeepLabError(f"{_shown(options)} does not read every keyword: {reasons}")
    return Architecture(**(options.describe() | absent))


def check_backbone(options: Architecture) -> None:
    """Checks that the backbone supports the keywords.

    Raises:
      DeepLabError: the backbone does not support a keyword; the message states legal values.
    """
    entry = find_backbone(options.backbone)
    if options.multi_grid is not None and not entry.has_multi_grid:
        raise DeepLabError(
            f"{options.backbone} has no multi-grid, which requires block4 of a ResNet; "
            "leave multi_grid unset"
        )
    if options.multi_grid is not None and len(options.multi_grid) != entry.multi_grid_size:
        raise DeepLabError(
            f"multi_grid={options.multi_grid} must hold {entry.multi_grid_size} rates"
        )
    if options.depth_multiplier != 1 and "depth_multiplier" not in entry.options:
        raise DeepLabError(f"{options.backbone} has no depth_multiplier; leave it at 1.0")
    if options.width_divisor != 1 and "width_divisor" not in entry.options:
        raise DeepLabError(f"{options.backbone} has no width_divisor; leave it at 1")
    if options.stride_placement and "stride_placement" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} supports one stride placement only; leave stride_placement unset"
        )
    if options.head == "cascade" and "cascade_blocks" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} has no cascade, which repeats block4 of a ResNet; give "
            "head='aspp' or a ResNet"
        )


def absent_values(options: Architecture) -> dict[str, Any]:
    """Returns the fixed values of keywords that the network does not read."""
    read = read_keywords(options)
    values = {
        name: ABSENT.get(name, field.default) for name, field in FIELDS.items() if name not in read
    }
    for name, legal in _restricted_values(options).items():
        current = getattr(options, name)
        values[name] = current if current in legal else legal[0]
    return values


def _restricted_values(options: Architecture) -> dict[str, tuple[str | None, ...]]:
    """Returns the legal values of keywords that the network reads only in part."""
    found: dict[str, tuple[str | None, ...]] = {}
    if options.head in ALWAYS_POOLING:
        found["image_pooling"] = ALWAYS_POOLING[options.head]
    entry = find_backbone(options.backbone)
    if "stride_placement" in entry.options and not entry.has_multi_grid:
        found["stride_placement"] = (*PADDINGS, None)
    return found


def _reason(options: Architecture, name: str, value: Any, legal: Any) -> str:
    shown = f"{name}={value!r}"
    if name in (restricted := _restricted_values(options)):
        values = " or ".join(repr(value) for value in restricted[name] if value)
        return f"{shown}: {ALL_VALUES[name]} (legal here: {values})"
    why = f"read by {'; '.join(_readers(name))}"
    return f"{shown}: {why} (legal here: {legal!r}, or leave {name} unset)"


def _readers(name: str) -> list[str]:
    """Returns the names of the parts that read a keyword."""
    readers = [part.name for part in PARTS if name in part.reads]
    backbones = [backbone for backbone, entry in BACKBONES.items() if name in entry.options]
    if name in (*BATCH_NORM, "batch_norm_epsilon"):
        readers.append("every backbone with batch normalization")
    return [*readers, f"backbone={' or '.join(map(repr, backbones))}"] if backbones else readers


def _shown(options: Architecture) -> str:
    fusion = f" (fusion={options.fusion!r})" if options.head == "aspp" else ""
    return (
        f"a network of backbone={options.backbone!r}, head={options.head!r}{fusion} and "
        f"decoder={options.decoder!r}"
    )
