"""Backbones by name, with what an assembly must know of each."""

import dataclasses
from collections.abc import Callable
from functools import partial

from flax import linen as nn

from deeplab_jax.backbones import mobilenet_v2, resnet
from deeplab_jax.backbones.features import Feature
from deeplab_jax.errors import unknown_name
from deeplab_jax.layers import Normalization


@dataclasses.dataclass(frozen=True)
class BackboneEntry:
    """A backbone and its conventions.

    Attributes:
      module: makes it; takes output_stride, normalization, dtype and what `options` names.
      options: the further keywords of the architecture that it understands.
      low_level: endpoints for decoders, finest first.
      normalization: the batch-norm constants it was trained with.
      preprocessing: how its images were normalised (see models/preprocessing.py).
      multi_grid_size: number of rates in a multi-grid; 0 where it has none.
    """

    module: Callable[..., nn.Module]
    options: tuple[str, ...]
    low_level: tuple[Feature, ...]
    normalization: Normalization
    preprocessing: str
    multi_grid_size: int = 0


def _resnet(block_sizes: tuple[int, int, int, int], beta_stem: bool) -> BackboneEntry:
    return BackboneEntry(
        module=partial(resnet.ResNet, block_sizes=block_sizes, beta_stem=beta_stem),
        options=("multi_grid",),
        low_level=resnet.low_level_features(block_sizes),
        normalization=resnet.NORMALIZATION,
        preprocessing="minus_one_one" if beta_stem else "mean",
        multi_grid_size=resnet.UNITS_IN_BLOCK4,
    )


BACKBONES = {
    "mobilenet_v2": BackboneEntry(
        module=mobilenet_v2.MobileNetV2,
        options=("depth_multiplier",),
        low_level=mobilenet_v2.LOW_LEVEL,
        normalization=mobilenet_v2.NORMALIZATION,
        preprocessing="minus_one_one",
    ),
    "resnet_50": _resnet((3, 4, 6, 3), beta_stem=False),
    "resnet_50_beta": _resnet((3, 4, 6, 3), beta_stem=True),
    "resnet_101": _resnet((3, 4, 23, 3), beta_stem=False),
    "resnet_101_beta": _resnet((3, 4, 23, 3), beta_stem=True),
}


def find_backbone(name: str) -> BackboneEntry:
    """Returns the entry of that name.

    Raises:
      DeepLabError: there is none; names the nearest.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]
