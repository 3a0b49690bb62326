"""What distinguishes one DeepLab from another, as plain values."""

import dataclasses
from typing import Any

from deeplab_jax.backbones import find_backbone
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.preprocessing import RGB_PREPROCESSINGS
from deeplab_jax.models.rules import check_value

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
      head: `aspp`, `pooling` (image pooling and 1×1) or `plain` (the classifier alone).
      atrous_rates: of ASPP's 3×3 branches, in pixels of the encoder's map.
      multi_grid: relative rates of a ResNet's block4; None for a backbone without one.
      image_pooling: `none` or `global`.
      aspp_channels: of every branch and the projection.
      dropout_rate: after the projection.
      decoder: `none` or `v3plus`.
      low_level_channels: the decoder's reduced low-level features.
      decoder_convs: (kernel size, channels) of the decoder's refining convolutions.
      separable: depthwise separable ASPP branches and decoder convolutions.
      depth_multiplier: scales the widths of a MobileNet.
      align_corners: convention of every resize.
      preprocessing: normalisation of the pixels.
      batch_norm_decay: of every moving average; None for each part's published one.
      dtype: of the computation; float64 needs jax_enable_x64 and is for numerical checks.
    """

    backbone: str
    num_classes: int = 21
    in_channels: int = 3
    output_stride: int = 16
    head: str = "aspp"
    atrous_rates: tuple[int, ...] = RATES_AT_16
    multi_grid: tuple[int, ...] | None = None
    image_pooling: str = "global"
    aspp_channels: int = 256
    dropout_rate: float = 0.1
    decoder: str = "none"
    low_level_channels: int = 48
    decoder_convs: tuple[tuple[int, int], ...] = ((3, 256), (3, 256))
    separable: bool = False
    depth_multiplier: float = 1.0
    align_corners: bool = True
    preprocessing: str = "minus_one_one"
    batch_norm_decay: float | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field.name, getattr(self, field.name))
        if self.in_channels != 3 and self.preprocessing in RGB_PREPROCESSINGS:
            raise DeepLabError(
                f"preprocessing={self.preprocessing!r} is of RGB images, but in_channels="
                f"{self.in_channels}; give preprocessing='minus_one_one' or 'none'"
            )
        self._check_multi_grid()
        if self.depth_multiplier != 1 and "depth_multiplier" not in self._backbone.options:
            raise DeepLabError(f"{self.backbone} has no depth_multiplier; leave it at 1.0")

    @property
    def _backbone(self):
        return find_backbone(self.backbone)

    def _check_multi_grid(self) -> None:
        size = self._backbone.multi_grid_size
        if self.multi_grid is None or len(self.multi_grid) == size:
            return
        if size == 0:
            raise DeepLabError(
                f"{self.backbone} has no multi-grid: that needs a ResNet's block4; "
                "leave multi_grid unset"
            )
        raise DeepLabError(f"multi_grid={self.multi_grid} must hold {size} rates")

    def describe(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return dataclasses.asdict(self)


def scaled_rates(output_stride: int) -> tuple[int, ...]:
    """Returns ASPP's default rates: (6, 12, 18) at output stride 16, in proportion elsewhere."""
    return tuple(rate * 16 // output_stride for rate in RATES_AT_16)
