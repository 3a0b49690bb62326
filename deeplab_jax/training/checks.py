"""Checks of a config beyond the types of its fields."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax.data import Dataset
from deeplab_jax.data.descriptors import check_several_classes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.padding import size_grid
from deeplab_jax.layers import refuse_single_values
from deeplab_jax.models import Architecture, read_keywords
from deeplab_jax.ops import scaled_size
from deeplab_jax.parallel import check_divisible, data_size, spatial_size
from deeplab_jax.reporter import Reporter

Size = tuple[int, int]


def check_frozen_parts(config: ConfigDict, network: Architecture, reporter: Reporter) -> None:
    """Warns of frozen parts whose batch normalization still updates its averages."""
    still = [part for part, factor in config.optimizer.multipliers.items() if factor == 0]
    moving = "frozen_batch_norm" in read_keywords(network) and not network.frozen_batch_norm
    if still and moving:
        reporter.warning(
            f"{', '.join(still)} of the network keep their parameters (optimizer.multipliers 0), "
            "but batch normalization still uses each batch's statistics and moves its averages; "
            "model.frozen_batch_norm=True stops that"
        )


def check_batch(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Checks that a batch splits into microbatches, each divisible over the `data` axis.

    Raises:
      DeepLabError: the batch size is invalid; the message suggests valid sizes.
    """
    check_divisible(batch_size, mesh, "training.batch_size")
    multiple = parts * data_size(mesh)
    if batch_size % multiple:
        raise DeepLabError(
            f"training.batch_size={batch_size} does not split into {parts} parts over "
            f"{data_size(mesh)} devices; give a multiple of {multiple}"
        )


def check_ghost_batch_size(group: int, batch_size: int, parts: int) -> None:
    """Checks that the ghost batch size divides a microbatch; 0 is always legal.

    Raises:
      DeepLabError: the ghost batch size does not divide it.
    """
    together = batch_size // parts
    if group and together % group:
        divisors = [str(size) for size in range(1, together + 1) if together % size == 0]
        raise DeepLabError(
            f"model.ghost_batch_size={group} does not divide the {together} images that go through "
            f"the network at once; legal: {', '.join(divisors)}, or 0 for all"
        )


def check_pooled_statistics(
    architecture: Architecture, crop_size: Size, together: int, reporter: Reporter
) -> None:
    """Checks the number of values per channel in the batch normalization after global pooling.

    It has the fewest values: one per image. The gate of LR-ASPP has no batch
    normalization, and frozen statistics do not depend on the batch.

    Args:
      architecture: architecture of the network.
      crop_size: height and width of the training images, in pixels.
      together: number of images per microbatch, over all devices.
      reporter: receives the warning about two values.

    Raises:
      DeepLabError: there is only one value.
    """
    pooled = pooled_size(architecture, crop_size)
    if pooled is None or architecture.frozen_batch_norm:
        return
    group = architecture.ghost_batch_size
    refuse_single_values((together, *pooled, 1), group, f"the pooling of {architecture.head!r}")
    if (group or together) * math.prod(pooled) == 2:
        cause = f"model.ghost_batch_size={group}" if group else f"{together} images at once"
        reporter.warning(
            f"batch normalization behind the pooling of {architecture.head!r} has two values per "
            f"channel ({cause}): they become +1 and -1 whatever they were, so only their order is "
            "learned; normalize 4 images or more together, or give model.frozen_batch_norm=True"
        )


def pooled_size(architecture: Architecture, crop_size: Size) -> Size | None:
    """Returns (rows, columns) of the smallest pooled map with batch normalization, or None.

    Args:
      architecture: architecture of the network.
      crop_size: height and width of the training images, in pixels.
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
    """Checks that the loss is not both computed in chunks of rows and sharded over rows.

    Raises:
      DeepLabError: both are requested.
    """
    if rows and spatial_size(mesh) > 1:
        raise DeepLabError(
            f"loss.chunk_rows={rows} takes rows one after the other, parallel.spatial="
            f"{spatial_size(mesh)} shares them out; give loss.chunk_rows=0 or parallel.spatial=1"
        )


def check_classes(
    train_set: Dataset, validation_set: Dataset, class_weights: Sequence[float] | None
) -> None:
    """Checks that both datasets and the class weights have the same number of classes, at least 2.

    Raises:
      DeepLabError: the numbers differ, or there is one class.
    """
    names = train_set.descriptor.class_names
    check_several_classes(names, train_set.name)
    others = validation_set.descriptor.class_names
    if len(others) != len(names):
        raise DeepLabError(
            f"{train_set.name} has {len(names)} classes and {validation_set.name} {len(others)}; "
            "train and validation must agree"
        )
    if class_weights is not None and len(class_weights) != len(names):
        raise DeepLabError(
            f"loss.class_weights holds {len(class_weights)} weights for {len(names)} classes "
            f"({', '.join(names)}); give one a class"
        )


def check_crop_size(
    crop_size: tuple[int, int], architecture: Architecture, strict: bool, reporter: Reporter
) -> None:
    """Warns of a crop size other than k·output_stride + 1, at which resized maps shift.

    Networks with several scales require this at each scale: with (1, 0.75, 0.5) and output stride 8
    the size must be k·32 + 1. With `align_corners=False` any size is valid.

    Raises:
      DeepLabError: `strict` is set; otherwise the reporter receives a warning.
    """
    stride = size_grid(architecture).step
    if not architecture.align_corners or all((side - 1) % stride == 0 for side in crop_size):
        return
    lower = tuple((side - 1) // stride * stride + 1 for side in crop_size)
    upper = tuple(-(-(side - 1) // stride) * stride + 1 for side in crop_size)
    text = (
        f"augmentation.crop_size={_shown(crop_size)} is not k·{stride}+1, so maps shift when they "
        f"are resized; nearest that are: {_shown(lower)} and {_shown(upper)}"
    )
    if strict:
        raise DeepLabError(text)
    reporter.warning(text)


def _shown(size: Sequence[int]) -> str:
    return f"{size[0]}×{size[1]}"
