"""Sections of the config, with type, default, unit, source and help of each field."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from deeplab_jax.architecture_fields import ArchitectureFields, Shorthands
from deeplab_jax.declarations import (
    ABOVE_ZERO,
    COUNT,
    FRACTION,
    NAMES,
    NONZERO_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    SEED,
    SIZE,
    WRITERS,
    Rule,
    keyword,
    kind,
)
from deeplab_jax.optimization_fields import Loss, Optimizer, Schedule

# Network keywords without a config field: the dataset determines them, or training does not support
# them.
NOT_IN_CONFIG = ("num_classes", "in_channels", "image_dtype", "quantization")
# Keywords that have a default in the config. All others have the default of the architecture or of
# the backbone.
SET_IN_CONFIG = ("architecture", "dtype")
# Legal values of `training.init_scope`, see `initialize_from`.
INIT_SCOPES = ("all", "backbone", "matching", "vgg_decimated")
MAGNITUDE = Rule(
    lambda value: isinstance(value, int | float) and 0 <= value <= 30, "a number from 0 to 30"
)


@dataclasses.dataclass(frozen=True)
class Data:
    """Dataset that a run trains and validates on."""

    name: str = keyword("", "Name of a prepared dataset.")
    data_dir: str = keyword("data", "Directory in which `prepare` wrote the dataset.")
    train_split: str = keyword("train", "Split of the dataset to train on.")
    validation_split: str = keyword("val", "Split of the dataset to validate on.")
    class_names: tuple[str, ...] | None = keyword(
        None,
        "Class names in label order; required if the dataset does not store them.",
        rule=NAMES,
    )
    oversample_classes: tuple[str, ...] | None = keyword(
        None,
        "Names of classes; images that contain one of them appear twice per training epoch.",
        source="DeepLab v3, section 4.3",
        rule=NAMES,
    )
    workers: int = keyword(
        0,
        "Number of data-loading processes; 0: threads of the training process load the data.",
        rule=COUNT,
    )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation of training examples.

    The steps are, in this order: change colors, resize as `min_resize` and `max_resize` state,
    scale by a random factor, pad, crop, rotate, flip, and mix with another crop. Resizing, scaling,
    padding, cropping and flipping have the same order as in the code of the DeepLab authors. The
    methods of mixing are `cutmix`, `classmix` and `copy_paste`; each crop is mixed at most once.
    """

    crop_size: tuple[int, int] = keyword(
        (513, 513),
        "Height and width of the crop, each k·output_stride + 1.",
        unit="pixels",
        rule=SIZE,
    )
    min_scale: float = keyword(
        0.5,
        "Minimum random scale factor of an image.",
        source="DeepLab v3, section 4",
        rule=ABOVE_ZERO,
    )
    max_scale: float = keyword(
        2.0,
        "Maximum random scale factor of an image.",
        source="DeepLab v3, section 4",
        rule=ABOVE_ZERO,
    )
    scale_step: float = keyword(
        0.25,
        "Step between random scale factors; 0: any factor in the range.",
        source="released code",
        rule=NOT_NEGATIVE,
    )
    min_resize: int = keyword(
        0,
        "Length to which the shorter side of an image is resized before the random scaling, if "
        "`max_resize` allows it; 0: the original length.",
        unit="pixels",
        source="released code, for ADE20K",
        rule=COUNT,
    )
    max_resize: int = keyword(
        0,
        "Maximum length of the longer side of an image before the random scaling; longer images "
        "are downsampled; 0: no limit. If `resize_factor` is k, the maximum is first rounded "
        "down to n·k + 1 pixels, where n is a whole number, so that no rounded side exceeds it.",
        unit="pixels",
        rule=COUNT,
    )
    resize_factor: int = keyword(
        0,
        "Each side of an image that `min_resize` or `max_resize` resizes is rounded up to n·k + 1 "
        "pixels, where k is this value and n is a whole number. 0: no rounding up.",
        unit="pixels",
        rule=COUNT,
    )
    max_class_fraction: float = keyword(
        1.0,
        "Maximum fraction of a crop that one class may cover. Up to ten random crops are drawn "
        "until one satisfies this limit; else the last one is used. 1: no limit.",
        source="mmsegmentation: 0.75",
        rule=NONZERO_FRACTION,
    )
    flip: bool = keyword(True, "Random left-right flip with probability ½.")
    rotation: float = keyword(
        0.0,
        "Maximum angle of the random rotation, to either side; 0: off.",
        unit="degrees",
        rule=NOT_NEGATIVE,
    )
    photometric: float = keyword(
        0.0, "Strength of the random color distortion, from 0 to 1; 0: off.", rule=PROBABILITY
    )
    randaugment: int = keyword(
        0,
        "Number of random color operations of RandAugment per image; 0: off.",
        source="arXiv 1909.13719, without the operations that move pixels",
        rule=COUNT,
    )
    randaugment_magnitude: float = keyword(
        9.0,
        "Magnitude of the color operations of RandAugment, from 0 to 30.",
        source="arXiv 1909.13719",
        rule=MAGNITUDE,
    )
    cutmix: float = keyword(
        0.0,
        "Probability that a crop receives a random rectangle of another crop; 0: off.",
        source="arXiv 1905.04899, 1906.01916",
        rule=PROBABILITY,
    )
    classmix: float = keyword(
        0.0,
        "Probability that a crop receives the pixels of half of the classes of another crop; 0: "
        "off.",
        source="arXiv 2007.07936",
        rule=PROBABILITY,
    )
    copy_paste: float = keyword(
        0.0,
        "Probability that a crop receives objects of `copy_paste_classes` from another crop; 0: "
        "off.",
        source="arXiv 2012.07177",
        rule=PROBABILITY,
    )
    copy_paste_classes: tuple[str, ...] | None = keyword(
        None,
        "Names of the classes whose objects `copy_paste` copies; an object is a connected region.",
        rule=NAMES,
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """Length, batch size, gradient checkpointing, monitoring and initialization of a run."""

    num_steps: int = keyword(
        30_000, "Number of training steps.", source="DeepLab v3, section 4", rule=POSITIVE
    )
    batch_size: int = keyword(
        16,
        "Number of images per batch, across all devices.",
        source="DeepLab v3, section 4",
        rule=POSITIVE,
    )
    accumulation_steps: int = keyword(
        1, "Number of microbatches per batch (gradient accumulation).", rule=POSITIVE
    )
    ema_decay: float = keyword(
        0.0,
        "Decay of the exponential moving average of the variables (the parameters, and the "
        "statistics of batch normalization). Evaluation uses this average. 0: no average.",
        rule=FRACTION,
    )
    patience: int = keyword(
        0, "Number of evaluations without improvement before early stopping; 0: off.", rule=COUNT
    )
    remat: str = keyword(
        "none",
        "Layers that the backward pass recomputes to save memory (gradient checkpointing): `none`, "
        "`norm` (normalizations and activations) or `block` (all layers inside the units of the "
        "backbone).",
        source="arXiv 1604.06174",
        legal=("none", "norm", "block"),
    )
    watchdog_seconds: int = keyword(
        300,
        "Seconds without progress after which the run prints the stacks of all threads and ends. "
        "The limit is 12 times as long for compilation, and 4 times as long for saving a "
        "checkpoint. 0: no limit.",
        rule=NOT_NEGATIVE,
    )
    writers: tuple[str, ...] = keyword(
        ("tensorboard",),
        "Writers of metrics in addition to `metrics.jsonl`: `tensorboard`, `wandb` (Weights & "
        "Biases) and `mlflow`.",
        rule=WRITERS,
    )
    init_from: str = keyword(
        "",
        "Source of the initial variables: name of published weights, hf://user/name, model "
        "directory or workdir; empty: random initialization.",
    )
    init_scope: str = keyword(
        "all",
        "Variables to load from `init_from`: `all` (except classifiers whose shape differs), "
        "`backbone`, `matching` (all variables whose name and shape are equal) or `vgg_decimated` "
        "(VGG-16 with subsampled fc6 and fc7).",
        source="DeepLab v1, section 3.2",
        legal=INIT_SCOPES,
    )


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Device mesh of `data` × `spatial` devices, over which a run shards images and image rows."""

    data: int = keyword(
        -1,
        "Size of the mesh axis `data`, over which the images of a batch are sharded; −1: number of "
        "devices / `spatial`.",
    )
    spatial: int = keyword(
        1, "Size of the mesh axis `spatial`: number of devices over which image rows are sharded."
    )
    fsdp: bool = keyword(
        False,
        "Sharding of kernels with at least 2^19 values, and of their optimizer state, over the "
        "mesh axis `data` (FSDP).",
        source="arXiv 1910.02054",
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Validation during a run."""

    every_steps: int = keyword(
        1000,
        "Number of training steps between evaluations; an evaluation also follows the last step.",
        rule=POSITIVE,
    )
    batch_size: int = keyword(
        8, "Number of images per evaluation batch; does not change the metrics.", rule=POSITIVE
    )
    size: tuple[int, int] | None = keyword(
        None,
        "Height and width to which all images are padded, as in the released code; unset: the "
        "padded size depends on the size of each image, as in `predict`.",
        unit="pixels",
        rule=SIZE,
    )
    limit: int | None = keyword(
        None,
        "Maximum number of images to evaluate, from the start of the split; unset: all images.",
        rule=POSITIVE,
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Checkpoints of a run. The last two, and the best one by validation mean IoU, are kept."""

    every_steps: int = keyword(1000, "Number of training steps between checkpoints.", rule=POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All sections and fields of the config of a run, except the section `model`.

    The fields of `model` are keywords of `create_model`; the function `model_fields` lists them.
    """

    seed: int = keyword(
        0,
        "Seed of initialization, data order, augmentation and dropout, from 0 to 2^32 − 1.",
        rule=SEED,
    )
    data: Data
    augmentation: Augmentation
    strict_crop: bool = keyword(
        False,
        "Error, instead of a warning, for crop sides that are not k·output_stride + 1.",
    )
    training: Training
    parallel: Parallel
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    evaluation: Evaluation
    checkpoint: Checkpoint
    log_every_steps: int = keyword(
        50,
        "Number of training steps between entries of metrics.jsonl and TensorBoard.",
        rule=POSITIVE,
    )


def declared_fields(
    owner: type = Config, prefix: str = ""
) -> Iterator[tuple[str, type, dataclasses.Field[Any]]]:
    """Yields the declarations of the config fields outside the section `model`.

    Args:
      owner: class whose fields to list (default: all sections).
      prefix: prefix of the yielded names, such as "optimizer.".

    Yields:
      (dotted name, class that declares the field, field).
    """
    for field in dataclasses.fields(owner):
        section = kind(owner, field)
        if dataclasses.is_dataclass(section):
            yield from declared_fields(section, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, owner, field


def model_fields() -> Iterator[tuple[str, type, dataclasses.Field[Any]]]:
    """Yields the declarations of the config fields in the section `model`.

    Yields:
      (name without the section, class that declares the field, field).
    """
    for owner in (Shorthands, ArchitectureFields):
        for field in dataclasses.fields(owner):
            if field.name not in NOT_IN_CONFIG:
                yield field.name, owner, field
