"""Definition of a preset, which adapts the rows of a table to a dataset and a machine."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Size:
    """Backbone and number of steps of a scaled-down training run.

    Attributes:
      backbone: backbone that is used instead of the backbone of the row.
      num_steps: number of training steps that is used instead of the number in the table's recipe.
      changes: further config fields to change, and their values.
    """

    backbone: str
    num_steps: int
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Changes that adapt the training runs of a table to a dataset and a machine.

    Most presets scale the published runs down. A row can multiply the batch size, number of steps,
    crop size or learning rate of the table's recipe by a factor. Its run then has the value of the
    preset, multiplied by the same factor.

    Attributes:
      name: name of the preset, the value of `--preset`.
      scales_down: whether the runs are scaled down. If not, the fields below are not used.
      small: backbone and steps for random initial weights, if the table does not require a ResNet.
      resnet: backbone and steps for random initial weights, if the table varies multi-grid or
        cascades, which require a ResNet.
      published: backbone and steps for all tables, if initial weights are given (`--init`).
      crop_size: (H, W) that replaces the crop size of the recipe.
      batch_size: batch size that replaces the batch size of the recipe.
      rate_share: factor for the atrous rates of the row.
      width_share: factor for the numbers of channels of the row's head and decoder. A quarter of
        this factor applies to fc6 and fc7.
      changes: further config fields to change, and their values.
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
