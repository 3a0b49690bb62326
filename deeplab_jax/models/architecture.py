"""What distinguishes one DeepLab from another, as plain values."""

import dataclasses
from typing import Any

from deeplab_jax.models.combinations import check_combination
from deeplab_jax.models.preprocessing import mean_pixel
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
