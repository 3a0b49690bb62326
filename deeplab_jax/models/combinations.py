"""Which values of an architecture go together."""

from typing import TYPE_CHECKING

from deeplab_jax.backbones import BackboneEntry, find_backbone
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.preprocessing import RGB_PREPROCESSINGS

if TYPE_CHECKING:
    from deeplab_jax.models.architecture import Architecture

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
