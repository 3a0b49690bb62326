"""Checks that the fields of a config fit each other, the network, the data and the devices."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax.data import Dataset
from deeplab_jax.data.descriptors import Bands
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.padding import size_grid
from deeplab_jax.labels import check_class_names
from deeplab_jax.layers import refuse_single_values
from deeplab_jax.models import Architecture, read_keywords
from deeplab_jax.ops import scaled_size
from deeplab_jax.parallel import check_divisible, data_size, spatial_size
from deeplab_jax.reporter import Reporter

Size = tuple[int, int]


def check_frozen_parts(config: ConfigDict, network: Architecture, reporter: Reporter) -> None:
    """Warns if parameters of the network are frozen, but batch normalization is not.

    Batch normalization that is not frozen updates its moving averages of mean and variance even in
    parts of the network whose learning-rate multiplier is 0.
    """
    still = [part for part, factor in config.optimizer.multipliers.items() if factor == 0]
    moving = "frozen_batch_norm" in read_keywords(network) and not network.frozen_batch_norm
    if still and moving:
        reporter.warning(
            f"the parameters of {', '.join(still)} are frozen (optimizer.multipliers is 0), but "
            "batch normalization still uses the statistics of each batch and updates its moving "
            "averages; set model.frozen_batch_norm=True to freeze batch normalization, too"
        )


def check_untrained_parts(config: ConfigDict, network: Architecture, reporter: Reporter) -> None:
    """Warns if random initial values are frozen: the backbone, or batch normalization."""
    if config.training.init_from:
        return
    if config.optimizer.multipliers.backbone == 0:
        reporter.warning(
            "the backbone is frozen (optimizer.multipliers.backbone is 0) with random parameters, "
            "because training.init_from is empty; set training.init_from to a trained model"
        )
    if network.frozen_batch_norm:
        reporter.warning(
            "batch normalization is frozen (model.frozen_batch_norm=True) with its initial mean 0 "
            "and variance 1, because training.init_from is empty; set training.init_from to a "
            "trained model, or model.frozen_batch_norm=False"
        )


def check_warmup(config: ConfigDict, reporter: Reporter) -> None:
    """Warns if the learning rate cannot reach its base value, because the warm-up is too long."""
    steps, warmup = config.training.num_steps, config.schedule.warmup_steps
    if warmup > steps:
        reporter.warning(
            f"schedule.warmup_steps={warmup} is larger than training.num_steps={steps}, so the "
            "learning rate stays below schedule.base_learning_rate; reduce schedule.warmup_steps"
        )


def check_batch(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Checks that a batch can be divided into microbatches, each sharded over the `data` axis.

    Args:
      batch_size: number of images per batch, across all devices.
      parts: number of microbatches per batch.
      mesh: device mesh.

    Raises:
      DeepLabError: the batch size is not a multiple of `parts` times the size of the `data` axis.
    """
    check_divisible(batch_size, mesh, "training.batch_size")
    multiple = parts * data_size(mesh)
    if batch_size % multiple:
        raise DeepLabError(
            f"training.batch_size={batch_size} must be a multiple of {multiple}: "
            f"{parts} microbatches (training.accumulation_steps) times {data_size(mesh)}, the size "
            "of the mesh axis `data`"
        )


def check_ghost_batch_size(group: int, batch_size: int, parts: int) -> None:
    """Checks that the ghost batch size divides the size of a microbatch.

    Args:
      group: ghost batch size, in images; 0 (whole microbatch) is always legal.
      batch_size: number of images per batch, across all devices.
      parts: number of microbatches per batch.

    Raises:
      DeepLabError: `group` does not divide the size of a microbatch. The message lists the legal
        sizes.
    """
    together = batch_size // parts
    if group and together % group:
        divisors = [str(size) for size in range(1, together + 1) if together % size == 0]
        raise DeepLabError(
            f"model.ghost_batch_size={group} does not divide the {together} images of a microbatch "
            "(training.batch_size divided by training.accumulation_steps); legal: "
            f"{', '.join(divisors)}, or 0 for the whole microbatch"
        )


def batch_unit(group: int, parts: int, mesh: Mesh) -> int:
    """Returns the smallest legal number of images in each shard of a batch.

    The multiples of this number pass `check_batch` and `check_ghost_batch_size`. All other numbers
    of images per shard are illegal.

    Args:
      group: ghost batch size, in images; 0: whole microbatch.
      parts: number of microbatches per batch.
      mesh: device mesh.
    """
    # A microbatch consists of whole groups, and of equal shards.
    return parts * math.lcm(group or 1, data_size(mesh)) // data_size(mesh)


def check_pooled_statistics(
    architecture: Architecture, crop_size: Size, together: int, reporter: Reporter
) -> None:
    """Checks the number of values per channel in batch normalization after image pooling.

    After image pooling, there are few values per channel, often one per image. A single value per
    channel is an error, and two values cause a warning. Nothing is checked if no batch
    normalization follows the pooling, or if batch normalization is frozen.

    Args:
      architecture: architecture of the network.
      crop_size: height and width of the training images, in pixels.
      together: number of images per microbatch, across all devices.
      reporter: receives the warning.

    Raises:
      DeepLabError: there is only one value per channel.
    """
    pooled = pooled_size(architecture, crop_size)
    if pooled is None or architecture.frozen_batch_norm:
        return
    group = architecture.ghost_batch_size
    refuse_single_values((together, *pooled, 1), group, f"the pooling of {architecture.head!r}")
    if (group or together) * math.prod(pooled) == 2:
        cause = f"model.ghost_batch_size={group}" if group else f"{together} images at once"
        reporter.warning(
            f"batch normalization after the pooling of {architecture.head!r} has only two values "
            f"per channel ({cause}) and always maps them to +1 and -1; normalize at least 4 images "
            "together, or set model.frozen_batch_norm=True"
        )


def pooled_size(architecture: Architecture, crop_size: Size) -> Size | None:
    """Returns the size of the feature map that image pooling outputs in training.

    For a network that is applied at several scales, the result is the smallest of the sizes.

    Args:
      architecture: architecture of the network.
      crop_size: height and width of the training images, in pixels.

    Returns:
      (height, width), or None if no batch normalization follows the pooling.
    """
    if architecture.head == "spp":
        return 1, 1
    pools = architecture.image_pooling != "none" and architecture.fusion == "concat"
    if architecture.head not in ("aspp", "pooling") or not pools:
        return None
    window = architecture.pooling_window
    if window is None:
        return 1, 1
    smallest = scaled_size(crop_size, min((1, *architecture.multi_scale)))
    maps = ((side - 1) // architecture.output_stride + 1 for side in smallest)
    return tuple(side - min(side, across) + 1 for side, across in zip(maps, window, strict=True))


def check_chunk_rows(rows: int, mesh: Mesh) -> None:
    """Checks that the loss is not computed in chunks of rows if rows are sharded over devices.

    Args:
      rows: number of rows per chunk; 0: no chunks.
      mesh: device mesh.

    Raises:
      DeepLabError: `rows` is above 0, and the mesh axis `spatial` has more than one device.
    """
    if rows and spatial_size(mesh) > 1:
        raise DeepLabError(
            f"loss.chunk_rows={rows} cannot be combined with parallel.spatial="
            f"{spatial_size(mesh)}; set loss.chunk_rows=0 or parallel.spatial=1"
        )


def check_classes(
    train_set: Dataset, validation_set: Dataset, class_weights: Sequence[float] | None
) -> None:
    """Checks that both datasets and the class weights have the same number of classes, at least 2.

    Names may differ between the datasets, but a name that both have must belong to one label.

    Raises:
      DeepLabError: these numbers differ, the training dataset has only one class or two classes of
        the same name, or a class has different labels in the two datasets.
    """
    names = train_set.descriptor.class_names
    check_class_names(names, train_set.name)
    others = validation_set.descriptor.class_names
    if len(others) != len(names):
        raise DeepLabError(
            "training and validation data must have the same number of classes, but "
            f"{train_set.name} has {len(names)} and {validation_set.name} has {len(others)}"
        )
    label_of = {name: label for label, name in enumerate(others)}
    for label, name in enumerate(names):
        if label_of.get(name, label) != label:
            raise DeepLabError(
                "training and validation data must have the same order of classes, but "
                f"{name!r} is class {label} of {train_set.name} and class {label_of[name]} of "
                f"{validation_set.name}; prepare both with the same list of classes (--classes)"
            )
    if class_weights is not None and len(class_weights) != len(names):
        raise DeepLabError(
            f"loss.class_weights must have {len(names)} weights, one per class "
            f"({', '.join(names)}), got {len(class_weights)}"
        )


def check_floating_point(architecture: Architecture, source: object) -> None:
    """Checks that the model of `training.init_from` is not quantized.

    Args:
      architecture: architecture of the model.
      source: path of the model.

    Raises:
      DeepLabError: the model is quantized.
    """
    if architecture.quantization != "none":
        raise DeepLabError(
            f"training.init_from={source} is a quantized model, whose 8-bit weights cannot be "
            "trained; give the floating-point model from which it was made"
        )


def check_bands(train_set: Dataset, validation_set: Dataset, augmentation: ConfigDict) -> None:
    """Checks that both datasets have the same bands, and that colors are distorted only in RGB.

    Args:
      train_set, validation_set: datasets of a run.
      augmentation: section `augmentation` of the config.

    Raises:
      DeepLabError: the bands of the datasets differ, or `augmentation` distorts colors although the
        bands are not 8-bit RGB.
    """
    ours, theirs = train_set.descriptor.bands, validation_set.descriptor.bands
    if (ours.count, ours.dtype, ours.chosen) != (theirs.count, theirs.dtype, theirs.chosen):
        raise DeepLabError(
            f"training and validation data must have the same bands, but {train_set.name} has "
            f"{_shown_bands(ours)} and {validation_set.name} has {_shown_bands(theirs)}"
        )
    for name in ("photometric", "randaugment"):
        value = augmentation[name]
        if value and not ours.are_rgb:
            raise DeepLabError(
                f"augmentation.{name}={value:g} requires 8-bit RGB images, but "
                f"{train_set.name} has {ours}; set augmentation.{name}=0"
            )


def _shown_bands(bands: Bands) -> str:
    return f"{bands}, chosen {bands.chosen}" if bands.chosen else str(bands)


def check_crop_size(
    crop_size: tuple[int, int], architecture: Architecture, strict: bool, reporter: Reporter
) -> None:
    """Warns if the crop size is one with which feature maps are shifted when they are resized.

    With `align_corners=False`, any size is valid. With `align_corners=True`, height and width must
    have the form k·output_stride + 1 for an integer k, or k·output_stride if `multiple_of_stride`
    is True. With `multi_scale`, the sizes at all scales must have this form (see `size_grid`). For
    example, the scales (1, 0.75, 0.5) at output stride 8 require k·32 + 1.

    Args:
      crop_size: height and width of the training images, in pixels.
      architecture: architecture of the network.
      strict: whether to raise an error instead of a warning.
      reporter: receives the warning.

    Raises:
      DeepLabError: `strict` is set, and the crop size is not valid.
    """
    stride = size_grid(architecture).step
    plus = architecture.size_remainder
    if not architecture.align_corners or all((side - plus) % stride == 0 for side in crop_size):
        return
    lower = tuple((side - plus) // stride * stride + plus for side in crop_size)
    upper = tuple(-(-(side - plus) // stride) * stride + plus for side in crop_size)
    form = f"k·{stride}+1" if plus else f"k·{stride}"
    text = (
        f"augmentation.crop_size={_shown(crop_size)} is not of the form {form}, so feature maps "
        f"are shifted when they are resized; nearest sizes: {_shown(lower)} and {_shown(upper)}"
    )
    if strict:
        raise DeepLabError(text)
    reporter.warning(text)


def _shown(size: Sequence[int]) -> str:
    return f"{size[0]}×{size[1]}"
