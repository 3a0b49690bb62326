"""Shrinks the training run of a table's row to the size of a preset.

If a row doubles the batch size of the table's recipe, for example, the shrunk run has twice the
batch size of the preset. Changes that the preset does not support are dropped.
"""

import copy

from ml_collections import ConfigDict

from deeplab_jax.models import Architecture, read_keywords
from deeplab_jax.training.workdir import network_of
from experiments.fields import set_field
from experiments.presets import Preset
from experiments.presets.preset import Size

# Parts of the network with a learning-rate multiplier. A multiplier of 0 freezes the part, and is
# kept. Other multipliers are set to 1, because they were chosen for the learning rate of the
# recipe.
MULTIPLIERS = ("backbone", "head", "decoder", "classifier", "auxiliary", "bias")

TRAIN_SPLIT = "data.train_split"
# Fields of random scaling. Presets do not change them in rows that disable random scaling.
SCALE_FIELDS = ("augmentation.min_scale", "augmentation.max_scale", "augmentation.scale_step")


def scaled_down(
    config: ConfigDict, base: ConfigDict, preset: Preset, size: Size, init: str = ""
) -> ConfigDict:
    """Returns the config of a training run, scaled down to a preset.

    Number of steps, batch size, crop size and learning rate are those of `preset` and `size`. If
    the row changes one of them by a factor, it is multiplied by the same factor. The first three
    are rounded to legal values.

    Args:
      config: config of the row's training run, at the size of the paper.
      base: config of the table's recipe, without the changes of the row.
      preset: preset that determines dataset, crop and batch size.
      size: backbone and number of steps of the scaled-down run.
      init: name or path of the initial weights of the backbone; empty: random weights.

    Raises:
      DeepLabError: the backbone `size.backbone` does not support the network of the row.
    """
    network = network_of(config)
    small = copy.deepcopy(config)
    _scale_training(small, config, base, preset, size)
    _scale_network(small, network, preset, size)
    # Without initial weights, there are no statistics to freeze.
    small.model.frozen_batch_norm = network.frozen_batch_norm and bool(init)
    for field, value in (*preset.changes.items(), *size.changes.items()):
        if field in SCALE_FIELDS and config.augmentation.max_scale == 1:
            continue
        # A row that chooses images chooses those of the dataset of the preset.
        if field == TRAIN_SPLIT and config.data.train_split != base.data.train_split:
            continue
        set_field(small, field, value)
    for part in MULTIPLIERS:
        if not config.optimizer.multipliers[part]:
            small.optimizer.multipliers[part] = 0.0
    _unset_unread(small)
    rate = config.schedule.base_learning_rate / base.schedule.base_learning_rate
    small.schedule.base_learning_rate *= rate
    small.strict_crop = False
    small.evaluation.size = None
    small.evaluation.every_steps = small.training.num_steps
    small.schedule.warmup_steps = min(small.schedule.warmup_steps, small.training.num_steps // 5)
    small.data.oversample_classes = None
    small.training.init_from, small.training.init_scope = init, "backbone" if init else "all"
    return small


def _unset_unread(small: ConfigDict) -> None:
    """Unsets, in place, the fields `model.*` that the network does not use."""
    # The rules of config version 1 ignore unused keywords; later rules raise an error.
    read = read_keywords(network_of(small, version=1))
    for name, value in small.model.items():
        if value is not None and name not in (*read, "architecture"):
            small.model[name] = None


def _scale_training(
    small: ConfigDict, config: ConfigDict, base: ConfigDict, preset: Preset, size: Size
) -> None:
    share = config.training.num_steps / base.training.num_steps
    small.training.num_steps = max(1, round(size.num_steps * share))
    drop = config.schedule.steps_per_drop / config.training.num_steps
    small.schedule.steps_per_drop = max(1, round(small.training.num_steps * drop))
    batch = config.training.batch_size / base.training.batch_size
    # In a batch of one image, batch normalization after image pooling would subtract each value
    # from itself.
    small.training.batch_size = max(2, round(preset.batch_size * batch))
    small.training.accumulation_steps = 1
    sides = zip(
        preset.crop_size, config.augmentation.crop_size, base.augmentation.crop_size, strict=True
    )
    crop = tuple(round((side - 1) * mine / theirs / 16) * 16 + 1 for side, mine, theirs in sides)
    small.augmentation.crop_size = crop
    small.augmentation.min_resize = small.augmentation.max_resize = 0
    multipliers = small.optimizer.multipliers
    for part in MULTIPLIERS:
        multipliers[part] = 1.0 if multipliers[part] else 0.0


def _scale_network(small: ConfigDict, network: Architecture, preset: Preset, size: Size) -> None:
    model = small.model
    with model.ignore_type():
        model.backbone = size.backbone
        model.output_stride = network.output_stride
        model.aspp = None
        # The head is set, because the default head of the small backbone may have no atrous
        # branches.
        model.head = network.head
        model.atrous_rates = _different(rate * preset.rate_share for rate in network.atrous_rates)
        model.multi_grid = _multi_grid(network, size.backbone)
        model.aspp_channels = _width(network.aspp_channels, preset.width_share)
        model.low_level_channels = _width(network.low_level_channels, preset.width_share)
        model.decoder_convs = tuple(
            (kernel, _width(channels, preset.width_share))
            for kernel, channels in network.decoder_convs
        )
        # fc6 and fc7 are at least four times as wide as ASPP branches, so they are narrowed more.
        model.fc_channels = _width(network.fc_channels, preset.width_share / 4)
        model.separable = network.separable
        model.stride_placement = model.preprocessing = None
        model.dtype = "float32"


def _multi_grid(network: Architecture, backbone: str) -> tuple[int, ...] | None:
    """Returns the rates `network.multi_grid`, or None if `backbone` is not a ResNet.

    For ResNet-18, whose last block has two units, only the last two rates are returned.
    """
    if network.multi_grid is None or not backbone.startswith("resnet"):
        return None
    return network.multi_grid[-2:] if "resnet_18" in backbone else network.multi_grid


def _width(channels: int, share: float) -> int:
    return max(1, round(channels * share)) if channels else 0


def _different(rates) -> tuple[int, ...]:
    """Returns rates rounded to integers; each is at least 1 larger than the previous one."""
    found: list[int] = []
    for rate in rates:
        least = found[-1] + 1 if found else 1
        found.append(max(least, int(rate + 0.5)))
    return tuple(found)
