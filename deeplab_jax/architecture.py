"""Architecture of a DeepLab network: the values of all keywords, checked for consistency.

This module imports neither JAX nor Flax, so commands that only check values are fast.
"""

import dataclasses
import math
from typing import Any

from deeplab_jax.architecture_fields import ArchitectureFields
from deeplab_jax.declarations import check_value
from deeplab_jax.errors import DeepLabError
from deeplab_jax.pixels import RGB_PREPROCESSINGS, subtracted_mean

# Heads that use `atrous_rates`; the others have no atrous convolutions, or fixed rates (DPC).
ATROUS_HEADS = ("aspp", "large_fov")


@dataclasses.dataclass(frozen=True)
class Architecture(ArchitectureFields):
    """Architecture of a DeepLab network: the value of every keyword of `create_model`."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(Architecture, field, getattr(self, field.name))
        _check_combination(self)

    @property
    def head_gives_scores(self) -> bool:
        """True if the head outputs class scores instead of features."""
        return self.head == "lr_aspp" or (self.head == "aspp" and self.fusion == "sum")

    @property
    def pooling_window(self) -> tuple[int, int] | None:
        """Height and width of the image-pooling windows, in pixels of the encoder output.

        None unless `image_pooling` is `crop`. Global pooling averages the whole encoder output.
        """
        if self.image_pooling != "crop":
            return None
        rows, columns = ((side - 1) // self.output_stride + 1 for side in self.pooling_crop)
        return rows, columns

    @property
    def size_remainder(self) -> int:
        """Remainder when a legal input height or width is divided by the output stride: 0 or 1."""
        return int(self.align_corners and not self.multiple_of_stride)

    @property
    def mean_pixel(self) -> tuple[int, ...]:
        """Pixel value that images are padded with: the mean that normalization subtracts, rounded.

        The normalization therefore maps padding to 0, except for the rounding (127.5 becomes 127),
        as in the released code.
        """
        means = self.pixel_mean or subtracted_mean(
            self.preprocessing, self.in_channels, self.image_dtype
        )
        return tuple(math.ceil(mean - 0.5) for mean in means)

    @property
    def takes_rgb(self) -> bool:
        """True if the input is an 8-bit RGB image."""
        return (self.in_channels, self.image_dtype) == (3, "uint8")

    def describe(self) -> dict[str, Any]:
        """Returns the value of every field by name, for a JSON file."""
        return dataclasses.asdict(self)


def _check_combination(network: Architecture) -> None:
    """Checks that the fields of an architecture fit each other.

    Raises:
      DeepLabError: two fields contradict each other; the message suggests a change.
    """
    _check_preprocessing(network)
    if network.head != "cascade" and network.cascade_blocks > 4:
        raise DeepLabError(
            f"cascade_blocks={network.cascade_blocks} requires head='cascade', but head="
            f"{network.head!r}; leave cascade_blocks unset, or use head='cascade'"
        )
    legal = [2**power for power in range(2, network.cascade_blocks + 2)]
    if network.output_stride not in legal:
        shown = ", ".join(map(str, legal))
        raise DeepLabError(f"output_stride={network.output_stride!r} must be one of {shown}")
    _check_rates(network)
    has_fc6 = network.head == "large_fov" and network.fc_channels > 0
    if network.fov != "large" and not has_fc6:
        raise DeepLabError(
            f"fov={network.fov!r} has no effect: it sets the kernel size of the layer fc6, which "
            "exists only with head='large_fov' and fc_channels above 0; leave fov unset"
        )
    if network.decoder_dropout and len(network.decoder_dropout) != len(network.decoder_convs):
        raise DeepLabError(
            f"decoder_dropout={network.decoder_dropout} must have one fraction for each decoder "
            f"convolution ({len(network.decoder_convs)} in decoder_convs), or be ()"
        )
    if network.multiple_of_stride and not network.align_corners:
        raise DeepLabError(
            "multiple_of_stride=True has no effect with align_corners=False, because input sides "
            "are then always multiples of the output stride; leave multiple_of_stride unset"
        )
    ends_in_scores = network.head_gives_scores or (network.head == "large_fov" and not has_fc6)
    if network.decoder != "none" and ends_in_scores:
        raise DeepLabError(
            f"decoder={network.decoder!r} requires a head that outputs features, but with the "
            f"given keywords, head={network.head!r} outputs class scores; use decoder='none', or "
            "head='aspp' with fusion='concat'"
        )


def _check_preprocessing(network: Architecture) -> None:
    channels, own = network.in_channels, (network.pixel_mean, network.pixel_std)
    if not any(own):
        if network.preprocessing in RGB_PREPROCESSINGS and not network.takes_rgb:
            raise DeepLabError(
                f"preprocessing={network.preprocessing!r} requires 8-bit RGB images, but "
                f"in_channels={channels} and image_dtype={network.image_dtype!r}; give "
                "preprocessing='minus_one_one' or 'none', or 'mean_std' with pixel_mean and "
                "pixel_std"
            )
    elif {len(values) for values in own} != {channels}:
        raise DeepLabError(
            f"pixel_mean has {len(own[0])} numbers and pixel_std has {len(own[1])}, but "
            f"in_channels={channels}; give one number per channel for both, or omit both"
        )


def _check_rates(network: Architecture) -> None:
    head, rates = network.head, network.atrous_rates
    if network.fusion == "sum" and head != "aspp":
        raise DeepLabError(
            f"fusion='sum' requires head='aspp', but head={head!r}; leave fusion unset, or use "
            "head='aspp'"
        )
    if network.fusion == "sum" and not rates:
        raise DeepLabError(
            "fusion='sum' requires at least one atrous rate, but atrous_rates=(); give rates, as "
            "in atrous_rates=(6, 12, 18, 24)"
        )
    if rates and head not in ATROUS_HEADS:
        raise DeepLabError(
            f"atrous_rates={rates} has no effect with head={head!r}; use head="
            f"{' or '.join(map(repr, ATROUS_HEADS))}, or leave atrous_rates unset"
        )
    if head == "large_fov" and len(rates) != 1:
        raise DeepLabError(
            f"head='large_fov' requires exactly one atrous rate, but atrous_rates={rates}; give "
            "one, as in atrous_rates=(12,)"
        )
