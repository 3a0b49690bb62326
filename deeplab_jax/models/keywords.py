"""Determines which keywords of `Architecture` have an effect on a network.

A keyword that no part of the network uses must have a fixed value. Otherwise, several architectures
would describe the same network.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from deeplab_jax.architecture import Architecture
from deeplab_jax.architecture_fields import RATE_STARTS
from deeplab_jax.backbones import BACKBONES, find_backbone
from deeplab_jax.errors import DeepLabError

BATCH_NORM = ("frozen_batch_norm", "batch_norm_decay", "ghost_batch_size")
FIELDS = Architecture.__dataclass_fields__


class Part(NamedTuple):
    """Part of a network, and the keywords that it uses.

    Attributes:
      name: description of the part for error messages, such as "head='aspp'".
      present: function that returns whether an architecture has the part.
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


def _has_separable_parts(options: Architecture) -> bool:
    has_branches = _has_concatenated_aspp(options) and bool(options.atrous_rates)
    refines = options.refine_encoder and not options.head_gives_scores
    return has_branches or refines or _refines_with_convolutions(options)


# Parts other than the backbone, which uses `BackboneEntry.options` and BATCH_NORM.
PARTS = (
    Part(
        "every network",
        lambda options: True,
        (
            *("backbone", "num_classes", "in_channels", "output_stride", "head", "decoder"),
            *("multi_scale", "aux_head", "align_corners", "preprocessing", "widths"),
            *("quantization", "image_dtype", "dtype", "multiple_of_stride"),
        ),
    ),
    Part(
        "preprocessing='mean_std'",
        lambda options: options.preprocessing == "mean_std",
        ("pixel_mean", "pixel_std"),
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
        ("image_pooling", "aspp_channels", "projection_size", "dropout_rate", *BATCH_NORM),
    ),
    Part(
        "head='aspp' with fusion='concat' and atrous_rates",
        lambda options: _has_concatenated_aspp(options) and bool(options.atrous_rates),
        ("separable",),
    ),
    Part(
        "head='pooling'",
        lambda options: options.head == "pooling",
        ("image_pooling", "aspp_channels", "projection_size", "dropout_rate", *BATCH_NORM),
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
        ("low_level_channels", "low_level_source", "decoder_convs", *BATCH_NORM),
    ),
    Part(
        "decoder='v3plus' or 'conv2_conv3' with decoder_convs",
        _refines_with_convolutions,
        ("separable", "decoder_dropout"),
    ),
    Part(
        "separable=True",
        lambda options: options.separable and _has_separable_parts(options),
        ("separable_norm",),
    ),
    Part(
        "a head that outputs features",
        lambda options: not options.head_gives_scores,
        ("refine", "refine_encoder"),
    ),
    Part(
        "refine=True",
        lambda options: options.refine and not options.head_gives_scores,
        ("aspp_channels", *BATCH_NORM),
    ),
    Part(
        "refine_encoder=True",
        lambda options: options.refine_encoder and not options.head_gives_scores,
        ("aspp_channels", "separable", *BATCH_NORM),
    ),
    Part("aux_head=True", lambda options: options.aux_head, BATCH_NORM),
)
# Fixed values of keywords without effect, where they are not the default of the field.
ABSENT: Mapping[str, Any] = {"image_pooling": "none", "dropout_rate": 0.0, "atrous_rates": ()}
# Legal values of `image_pooling` for heads that always pool.
ALWAYS_POOLING = {"spp": ("global",), "lr_aspp": ("global", "crop")}
# On a MobileNet the stride placement only selects the padding.
PADDINGS = ("slim", "torchvision")


def read_keywords(options: Architecture) -> frozenset[str]:
    """Returns the keywords that the backbone and the other parts of a network use."""
    entry = find_backbone(options.backbone)
    read = set(entry.options)
    if entry.normalization is not None:
        read |= {"batch_norm_epsilon", *BATCH_NORM}
    for part in PARTS:
        if part.present(options):
            read |= set(part.reads)
    # With `frozen_batch_norm` the other two of BATCH_NORM have no effect, but they remain legal,
    # because recipes that set a decay may also freeze the statistics.
    return frozenset(read)


def settled(options: Architecture, given: Mapping[str, Any]) -> Architecture:
    """Returns a copy of an architecture in which keywords without effect have fixed values.

    If the network does not support the default of a keyword that the caller did not set, the
    default is replaced by a value that the network supports.

    Args:
      options: architecture with the given keywords and all defaults.
      given: keywords that the caller set.

    Raises:
      DeepLabError: the network does not support a given keyword or its value, or a given keyword
        has no effect and differs from its fixed value. The message names these keywords, the
        parts of a network that use them, and the legal values.
    """
    check_backbone(options)
    absent = absent_values(options)
    wrong = {name: given[name] for name in absent if name in given and given[name] != absent[name]}
    if wrong:
        reasons = "; ".join(_reason(options, name, wrong[name], absent[name]) for name in wrong)
        raise DeepLabError(f"{_shown(options)} does not support these values: {reasons}")
    return Architecture(**(options.describe() | absent))


def check_backbone(options: Architecture) -> None:
    """Checks that the backbone supports the keywords that apply only to some backbones.

    Raises:
      DeepLabError: the backbone does not support a keyword; the message suggests a legal value.
    """
    entry = find_backbone(options.backbone)
    if options.multi_grid is not None and not entry.has_multi_grid:
        raise DeepLabError(
            f"{options.backbone} does not support multi_grid, which only ResNets support; "
            "set multi_grid=None"
        )
    if options.multi_grid is not None and len(options.multi_grid) != entry.multi_grid_size:
        raise DeepLabError(
            f"multi_grid={options.multi_grid} must have {entry.multi_grid_size} rates for "
            f"{options.backbone}"
        )
    if options.depth_multiplier != 1 and "depth_multiplier" not in entry.options:
        raise DeepLabError(f"{options.backbone} does not support depth_multiplier; omit it")
    if options.width_divisor != 1 and "width_divisor" not in entry.options:
        raise DeepLabError(f"{options.backbone} does not support width_divisor; omit it")
    if options.stochastic_depth and "stochastic_depth" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} does not support stochastic_depth, which only ResNets and timm/ "
            "backbones support; set stochastic_depth=0"
        )
    if options.stride_placement and "stride_placement" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} does not support stride_placement; set stride_placement=None"
        )
    if options.low_level_source == "block" and not entry.blocks:
        raise DeepLabError(
            f"{options.backbone} does not support low_level_source='block'; use 'convolution'"
        )
    if options.head == "cascade" and "cascade_blocks" not in entry.options:
        raise DeepLabError(
            f"{options.backbone} does not support head='cascade', which only ResNets support; use "
            "a ResNet, or another head, as in head='aspp'"
        )


def absent_values(options: Architecture) -> dict[str, Any]:
    """Returns legal values of the keywords that have no effect or whose values are restricted.

    The value of a keyword without effect on the network is fixed. The value of a keyword of which
    the network supports only some values is its value in `options` if the network supports it, else
    the first supported value.
    """
    read = read_keywords(options)
    values = {
        name: ABSENT.get(name, field.default) for name, field in FIELDS.items() if name not in read
    }
    for name, restriction in _restrictions(options).items():
        current = getattr(options, name)
        values[name] = current if current in restriction.legal else restriction.legal[0]
    return values


class Restriction(NamedTuple):
    """Legal values of one keyword for a network, and the reason why other values are illegal."""

    legal: tuple[str | None, ...]
    reason: str


def _restrictions(options: Architecture) -> dict[str, Restriction]:
    """Returns {keyword: restriction} for the keywords whose values a network restricts."""
    found = {}
    if options.head in ALWAYS_POOLING:
        legal = ALWAYS_POOLING[options.head]
        found["image_pooling"] = Restriction(legal, "this head always pools")
    entry = find_backbone(options.backbone)
    if "stride_placement" in entry.options and not entry.has_multi_grid:
        reason = "only ResNets support every stride placement"
        found["stride_placement"] = Restriction((*PADDINGS, None), reason)
    if "rate_start" in entry.options and options.backbone != "mobilenet_v2":
        found["rate_start"] = Restriction(RATE_STARTS[:2], "only MobileNetV2 supports every value")
    if options.stride_placement == "caffe" and entry.bottleneck:
        # The 3×3 convolution of the same unit comes after the convolution with the stride.
        reason = "with stride_placement='caffe', the stride is that of a 1×1 convolution"
        found["rate_start"] = Restriction(RATE_STARTS[:1], reason)
    return found


def _reason(options: Architecture, name: str, value: Any, legal: Any) -> str:
    shown = f"{name}={value!r}"
    if restriction := _restrictions(options).get(name):
        values = " or ".join(repr(value) for value in restriction.legal if value)
        return f"{shown}: {restriction.reason} (legal here: {values})"
    why = f"used only by {'; '.join(_readers(name))}"
    return f"{shown}: {why} (legal here: {legal!r}, or leave {name} unset)"


def _readers(name: str) -> list[str]:
    """Returns the names of the parts and backbones that use a keyword."""
    readers = [part.name for part in PARTS if name in part.reads]
    backbones = [backbone for backbone, entry in BACKBONES.items() if name in entry.options]
    if name in (*BATCH_NORM, "batch_norm_epsilon"):
        readers.append("every backbone with batch normalization")
    return [*readers, f"backbone={' or '.join(map(repr, backbones))}"] if backbones else readers


def _shown(options: Architecture) -> str:
    fusion = f" (fusion={options.fusion!r})" if options.head == "aspp" else ""
    return (
        f"a network with backbone={options.backbone!r}, head={options.head!r}{fusion} and "
        f"decoder={options.decoder!r}"
    )
