"""Registry of backbones: for each, its Flax module and the conventions of its published weights."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from deeplab_jax.backbones import (
    convnext,
    efficientnet,
    efficientnet_networks,
    mobilenet,
    regnet,
    resnet,
    vgg,
    xception,
)
from deeplab_jax.backbones.atrous import Feature
from deeplab_jax.errors import check_name
from deeplab_jax.layers import Normalization
from deeplab_jax.named_architectures import BACKBONE_KEYWORDS


class Wide(NamedTuple):
    """1×1 convolution that widens the features in the image classifier of a backbone.

    Attributes:
      channels: number of output channels if `Architecture.depth_multiplier` is 1.
      place: `before` or `after`: whether the convolution is before or after the pooling.
      activation: activation function.
      name: name of the layer.
      has_bias: whether the convolution has a bias instead of batch normalization.
    """

    channels: int
    place: str
    activation: Callable[[jax.Array], jax.Array]
    name: str = "head"
    has_bias: bool = False


@dataclasses.dataclass(frozen=True)
class BackboneEntry:
    """Backbone, and the conventions it was published with.

    Attributes:
      module: constructor of the module. Its arguments are `output_stride`, `form`, the keywords in
        `options`, and `normalization` if the backbone has batch normalization.
      options: further keywords of `Architecture` that the module accepts.
      low_level: endpoints for decoders, finest first, at least two.
      blocks: endpoints that replace `low_level` if `Architecture.low_level_source` is `block`, in
        the same order; () if the backbone does not support this.
      normalization: published hyperparameters of batch normalization; None for a backbone without
        batch normalization.
      preprocessing: published normalization of input pixels (see models/preprocessing.py).
      auxiliary: endpoint that the auxiliary head is attached to.
      intermediate: endpoints that DeepLab-MSc uses in addition to the image.
      multi_grid_size: number of rates in `Architecture.multi_grid`; 0: the backbone has no
        multi-grid.
      bottleneck: whether the first convolution of a residual unit is 1×1, so that a rate has no
        effect there; used only if the backbone has the keyword `stride_placement`.
      fully_connected: whether the published image classifier has the layers fc6 and fc7, which
        LargeFOV and summed ASPP convert to convolutions.
      wide: 1×1 convolution before or after the pooling in the published image classifier; None for
        classifiers without such a convolution.
      separable: whether the ASPP and the decoder of DeepLab v3+ are separable by default.
      head: default head of DeepLab v3 on this backbone, as published.
      pooled_norm: whether the published image classifier has a layer normalization after the
        pooling.
      align_corners: default of `Architecture.align_corners`; False for backbones that divide the
        image into patches, because then the corner values of a map are not at the corner pixels.
    """

    module: Callable[..., nn.Module]
    options: tuple[str, ...]
    low_level: tuple[Feature, ...]
    normalization: Normalization | None
    preprocessing: str
    auxiliary: Feature
    intermediate: tuple[Feature, ...]
    blocks: tuple[Feature, ...] = ()
    multi_grid_size: int = 0
    bottleneck: bool = False
    fully_connected: bool = False
    wide: Wide | None = None
    separable: bool = False
    head: str = "aspp"
    pooled_norm: bool = False
    align_corners: bool = True

    @property
    def has_multi_grid(self) -> bool:
        """True if the backbone supports `Architecture.multi_grid`. Only ResNets support it."""
        return self.multi_grid_size > 0


def _resnet(depth: int, beta_stem: bool) -> BackboneEntry:
    form = resnet.DEPTHS[depth]
    low_level = resnet.low_level_features(form)
    return BackboneEntry(
        module=partial(resnet.ResNet, depth=depth, beta_stem=beta_stem),
        options=BACKBONE_KEYWORDS[f"resnet_{depth}"],
        low_level=low_level,
        normalization=resnet.NORMALIZATION,
        preprocessing="minus_one_one" if beta_stem else "mean",
        auxiliary=Feature("block3", low_level[2].channels, 16),
        intermediate=low_level,
        blocks=resnet.block_features(form),
        multi_grid_size=form.block_sizes[3],
        bottleneck=form.bottleneck,
    )


def _xception(depth: int) -> BackboneEntry:
    low_level = xception.low_level_features(depth)
    return BackboneEntry(
        module=partial(xception.Xception, depth=depth),
        options=BACKBONE_KEYWORDS[f"xception_{depth}"],
        separable=True,
        low_level=low_level,
        normalization=xception.NORMALIZATION,
        preprocessing="minus_one_one",
        auxiliary=low_level[2],
        intermediate=low_level,
    )


def _mobilenet_v3(size: str) -> BackboneEntry:
    widest = size.partition("_")[0]
    low_level = mobilenet.V3_LOW_LEVEL[widest]
    return BackboneEntry(
        module=partial(mobilenet.MobileNetV3, size=size),
        options=BACKBONE_KEYWORDS[f"mobilenet_v3_{size}"],
        low_level=low_level,
        normalization=mobilenet.NORMALIZATION,
        preprocessing="minus_one_one",
        auxiliary=mobilenet.AUXILIARY[widest],
        intermediate=low_level,
        head="lr_aspp" if size.endswith("_seg") else "aspp",
        wide=Wide(
            1280 if widest == "large" else 1024, "after", nn.hard_swish, "hidden", has_bias=True
        ),
    )


def _of_timm(
    name: str,
    module: Callable[..., nn.Module],
    features: Sequence[Feature],
    normalization: Normalization | None,
    **conventions: Any,
) -> BackboneEntry:
    """Returns the registry entry of a backbone that is also in timm.

    Args:
      name: name of the network in timm.
      module: constructor of the module.
      features: endpoints; the first three have strides 4, 8 and 16.
      normalization: published hyperparameters of batch normalization; None: the backbone has none.
      **conventions: further fields of `BackboneEntry`.
    """
    low_level = tuple(features[:3])
    return BackboneEntry(
        module=module,
        options=BACKBONE_KEYWORDS[f"timm/{name}"],
        low_level=low_level,
        normalization=normalization,
        auxiliary=low_level[2],
        intermediate=low_level,
        **({"preprocessing": "mean_std"} | conventions),
    )


def _timm_resnet(name: str) -> BackboneEntry:
    depth, variant = resnet.TIMM[name]
    make = partial(resnet.ResNet, depth=depth, variant=variant, stride_placement="torchvision")
    form = resnet.DEPTHS[depth]
    features = resnet.block_features(form)
    size = form.block_sizes[3]
    return _of_timm(name, make, features, resnet.PYTORCH_NORMALIZATION, multi_grid_size=size)


def _convnext(name: str) -> BackboneEntry:
    make = partial(convnext.ConvNeXt, name_in_timm=name)
    features = convnext.features(convnext.SIZES[name])
    return _of_timm(name, make, features, None, pooled_norm=True, align_corners=False)


def _regnet(name: str) -> BackboneEntry:
    make = partial(regnet.RegNet, name_in_timm=name)
    features = regnet.features(regnet.SIZES[name])
    return _of_timm(name, make, features, resnet.PYTORCH_NORMALIZATION)


def _efficientnet(name: str) -> BackboneEntry:
    network = efficientnet_networks.NETWORKS[name]
    return _of_timm(
        name,
        partial(efficientnet.EfficientNet, name_in_timm=name),
        efficientnet_networks.features(network),
        efficientnet_networks.normalization(network),
        preprocessing=network.preprocessing,
        wide=Wide(
            efficientnet_networks.head_channels(network), network.head_place, network.activation
        ),
    )


BACKBONES = {
    "vgg_16": BackboneEntry(
        module=vgg.VGG,
        options=BACKBONE_KEYWORDS["vgg_16"],
        low_level=vgg.LOW_LEVEL,
        normalization=None,
        preprocessing="caffe_bgr",
        auxiliary=Feature("pool4", 512, 16),
        intermediate=vgg.POOLED,
        fully_connected=True,
    ),
    **{f"resnet_{depth}": _resnet(depth, beta_stem=False) for depth in resnet.OWN_DEPTHS},
    **{f"resnet_{depth}_beta": _resnet(depth, beta_stem=True) for depth in resnet.OWN_DEPTHS},
    **{f"xception_{depth}": _xception(depth) for depth in (41, 65, 71)},
    "mobilenet_v2": BackboneEntry(
        module=mobilenet.MobileNetV2,
        options=BACKBONE_KEYWORDS["mobilenet_v2"],
        low_level=mobilenet.V2_LOW_LEVEL,
        normalization=mobilenet.NORMALIZATION,
        preprocessing="minus_one_one",
        auxiliary=mobilenet.V2_LOW_LEVEL[2],
        intermediate=mobilenet.V2_LOW_LEVEL,
        blocks=mobilenet.V2_BLOCKS,
        head="pooling",
        wide=Wide(1280, "before", nn.relu6, "layer_19"),
    ),
    **{f"mobilenet_v3_{size}": _mobilenet_v3(size) for size in mobilenet.V3_ENDS},
    **{f"timm/{name}": _timm_resnet(name) for name in resnet.TIMM},
    **{f"timm/{name}": _convnext(name) for name in convnext.SIZES},
    **{f"timm/{name}": _regnet(name) for name in regnet.SIZES},
    **{f"timm/{name}": _efficientnet(name) for name in efficientnet_networks.NETWORKS},
}


def find_backbone(name: str) -> BackboneEntry:
    """Returns the entry of a backbone by its name.

    Raises:
      DeepLabError: the name is unknown; the message suggests the nearest known name.
    """
    check_name("backbone", name, BACKBONES)
    return BACKBONES[name]
