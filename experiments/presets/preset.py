"""Definition of a preset, which adapts the trainings of a table to a dataset and a machine."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Size:
    """Network and length of a scaled-down training.

    Attributes:
      backbone: backbone that replaces the one of the table.
      num_steps: number of training steps that replaces the one of the table's recipe.
      changes: values by config field.
    """

    backbone: str
    num_steps: int
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Dataset, crop size, batch size and networks to which a table is scaled down.

    If a row changes a number of the recipe, such as the batch size or the number of steps, the
    preset changes its number by the same factor.

    Attributes:
      name: name of the preset, see `--preset`.
      scales_down: whether the table is scaled down; otherwise all other fields are unused.
      small: network for tables that do not require a ResNet.
      resnet: network for tables that vary multi-grid or cascades.
      published: network for training from initial weights (`--init`).
      crop_size: (H, W) that replaces the crop size of the recipe.
      batch_size: batch size that replaces the one of the recipe.
      rate_share: factor by which atrous rates are multiplied.
      width_share: factor by which the channels of head and decoder are multiplied.
      changes: values by config field.
    """

    name: str
    scales_down: bool = False
    small: Size | None = None
    resnet: Size | None = None
    published: Size | None = None
    crop_size: tuple[int, int] = (513, 513)
    batch_size: int = 16
    rate_share: float = 1.0
    width_share: float = 1.0
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
