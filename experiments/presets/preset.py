"""Changes of a preset to the trainings of a table."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Size:
    """A network and how long it is trained.

    Attributes:
      backbone: instead of the table's.
      num_steps: updates of a training that is as long as the table's base recipe.
      changes: other config fields.
    """

    backbone: str
    num_steps: int
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Preset:
    """A dataset with the size of crops, batches and networks.

    A varied field of a row stays in proportion to the table's base recipe: half its batch is half
    that of the preset, a fifth of its steps a fifth.

    Attributes:
      name: as `--preset` takes it.
      scales_down: whether anything changes; all below is unused otherwise.
      small: the network of tables that any backbone can show.
      resnet: of tables that vary multi-grid or cascades.
      published: the network that starts from given weights (`--init`).
      crop_size: (H, W) of what the base recipe crops.
      batch_size: of the base recipe.
      rate_share: atrous rates, times this.
      width_share: channels of head and decoder, times this.
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
