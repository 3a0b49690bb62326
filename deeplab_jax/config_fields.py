"""Declarations of all config fields: type, default, unit, source and help."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from deeplab_jax.architecture import Architecture, Shorthands
from deeplab_jax.declarations import (
    ABOVE_ZERO,
    COUNT,
    FRACTION,
    NONZERO_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    SIZE,
    WRITERS,
    Rule,
    keyword,
    kind,
)

# Keywords of a network that the dataset determines, or that training does not support.
NOT_IN_CONFIG = ("num_classes", "in_channels", "image_dtype", "quantization")
# Keywords with a default in the config; for the others, that of the architecture or of the backbone
# applies.
SET_IN_CONFIG = ("architecture", "dtype")
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
        None, "Class names, for datasets that do not store them."
    )
    oversample_classes: tuple[str, ...] | None = keyword(
        None,
        "Classes whose images appear twice per training epoch.",
        source="DeepLab v3, section 4.3",
    )
    workers: int = keyword(
        0, "Number of data-loading processes; 0: threads of the training process."
    )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation in the order of the released code: resize, scale, pad, crop, flip; then mixing.

    Each crop is mixed with at most one other crop, by one of `cutmix`, `classmix` and `copy_paste`.
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
        0.25, "Step between scale factors; 0: continuous.", source="released code"
    )
    min_resize: int = keyword(
        0,
        "Minimum length of the shorter side after the first resize; 0: no resize.",
        unit="pixels",
        source="released code, for ADE20K",
        rule=COUNT,
    )
    max_resize: int = keyword(
        0,
        "Maximum length of the longer side after the first resize; 0: no limit.",
        unit="pixels",
        rule=COUNT,
    )
    resize_factor: int = keyword(
        0,
        "Factor k of the first resize: sides are rounded up to the form n·k + 1; 0: no rounding.",
        unit="pixels",
        rule=COUNT,
    )
    max_class_fraction: float = keyword(
        1.0,
        "Maximum fraction of a crop that one class may cover; other crops are redrawn, at most ten "
        "times; 1: no limit.",
        source="mmsegmentation: 0.75",
        rule=NONZERO_FRACTION,
    )
    flip: bool = keyword(True, "Random left-right flip with probability ½.")
    rotation: float = keyword(
        0.0, "Maximum random rotation to either side; 0: off.", unit="degrees"
    )
    photometric: float = keyword(0.0, "Strength of the color distortion, 0..1; 0: off.")
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
        "Probability that a crop receives half of the classes of another crop; 0: off.",
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
        None, "Names of the classes whose objects, connected regions of one class, are pasted."
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """Length, batch size, memory saving and initialization of a run."""

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
        "Decay of the moving average of the parameters, which evaluation then uses; 0: no average.",
        rule=FRACTION,
    )
    patience: int = keyword(
        0, "Number of evaluations without improvement before early stopping; 0: off."
    )
    remat: str = keyword(
        "none",
        "Gradient checkpointing (rematerialization): `none`, `norm` (batch normalizations and "
        "activations) or `block` (all feature maps inside a unit of the backbone).",
        source="arXiv 1604.06174",
        legal=("none", "norm", "block"),
    )
    watchdog_seconds: int = keyword(
        300,
        "Seconds without progress after which the run prints all stacks and ends; 0: never. "
        "Compilation may take 12 times and a checkpoint 4 times as long.",
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
        "Published name, hf://user/name, model directory or workdir to load initial variables "
        "from; empty: random initialization.",
    )
    init_scope: str = keyword(
        "all",
        "Variables to load from `init_from`: `all` (except classifiers of another shape), "
        "`backbone`, `matching` (all with an equal name and shape) or `vgg_decimated` (VGG-16 with "
        "subsampled fc6 and fc7).",
        source="DeepLab v1, section 3.2",
    )


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Device mesh of `data` × `spatial` devices."""

    data: int = keyword(
        -1,
        "Number of devices, or of groups of `spatial` devices, that a batch is sharded over; "
        "−1: all.",
    )
    spatial: int = keyword(1, "Number of devices that image rows are sharded over.")
    fsdp: bool = keyword(
        False,
        "Sharding of kernels and optimizer state over the `data` axis (FSDP).",
        source="arXiv 1910.02054",
    )


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weighted sum of losses; deeplab_jax/losses has the formula and source of each."""

    cross_entropy: float = keyword(1.0, "Weight of the cross-entropy; 0: off.")
    focal: float = keyword(0.0, "Weight of the focal loss; 0: off.", source="arXiv 1708.02002")
    dice: float = keyword(0.0, "Weight of the Dice loss; 0: off.", source="arXiv 1606.04797")
    lovasz: float = keyword(
        0.0, "Weight of the Lovász-softmax loss; 0: off.", source="arXiv 1705.08790"
    )
    class_weights: tuple[float, ...] | None = keyword(
        None, "Weight of each class in the cross-entropy; unset: 1 for all."
    )
    label_smoothing: float = keyword(
        0.0, "Label smoothing of the cross-entropy, 0..1.", rule=FRACTION
    )
    focal_gamma: float = keyword(
        2.0, "Exponent γ of the focal loss, from 0.", source="arXiv 1708.02002", rule=NOT_NEGATIVE
    )
    hard_pixel_fraction: float = keyword(
        1.0,
        "Fraction of the hardest pixels kept in the cross-entropy, 0..1.",
        rule=NONZERO_FRACTION,
    )
    hard_pixel_anneal_steps: int = keyword(
        0, "Number of steps over which `hard_pixel_fraction` falls from 1; 0: constant.", rule=COUNT
    )
    upsample_logits: bool = keyword(
        True,
        "Upsampling of the logits to the label size; False: downsampling of the label to the size "
        "of the logits.",
        source="DeepLab v3, section 4.1; v1, v2: False",
    )
    chunk_rows: int = keyword(
        0,
        "Number of label rows that the loss is computed on at a time, to save memory; 0: all. "
        "Requires cross-entropy as the only loss and upsampled logits.",
        unit="rows",
        rule=COUNT,
    )
    normalization: str = keyword(
        "pixels",
        "Normalization of the loss: mean over all labeled pixels of the batch (`pixels`, v3), or "
        "mean per image, then over the images (`images`, v2 on ResNet-101).",
        legal=("pixels", "images"),
    )
    supervise_all_scales: bool = keyword(
        False,
        "Loss on the scores of every scale of `model.multi_scale`, in addition to the fused ones.",
        source="DeepLab v2, released",
    )
    auxiliary_weight: float = keyword(
        0.5,
        "Weight of the loss of the auxiliary head; 0: off.",
        source="torchvision",
        rule=NOT_NEGATIVE,
    )
    l1: float = keyword(
        0.0, "Weight of the L1 norm of the convolution kernels; 0: off.", rule=NOT_NEGATIVE
    )


def _factor(part: str) -> float:
    """Declares the learning-rate multiplier of one part of the network."""
    return keyword(1.0, f"Learning-rate multiplier of {part}; 0 freezes it.", rule=NOT_NEGATIVE)


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """Learning-rate multipliers of the parts of the network; 0 freezes a part.

    DeepLab v2 was released with `classifier=10` and `bias=2`, and on ResNet-101 with `norm=0`, too.
    """

    backbone: float = _factor("the backbone")
    head: float = _factor("the head, without its classifiers")
    decoder: float = _factor("the decoder")
    classifier: float = _factor("all classifiers, including those inside a head")
    auxiliary: float = _factor("the auxiliary head")
    bias: float = _factor("convolution biases, in addition to that of their part")
    norm: float = _factor("normalization scales and offsets, in addition to that of their part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer, and the learning-rate multipliers of the parts of the network."""

    name: str = keyword(
        "sgd",
        "Optimizer: `sgd` (with momentum), `adam`, `adamw`, `lars` or `lamb`.",
        legal=("sgd", "adam", "adamw", "lars", "lamb"),
    )
    momentum: float = keyword(
        0.9, "Momentum of `sgd`, or decay of the first moment of Adam, in [0, 1)."
    )
    weight_decay: float = keyword(
        4e-5,
        "Weight decay of convolution kernels; 0: off.",
        source="released code",
        rule=NOT_NEGATIVE,
    )
    decay_depthwise: bool = keyword(
        False,
        "Weight decay also applies to depthwise kernels.",
        source="released code: False",
    )
    nesterov: bool = keyword(False, "Nesterov momentum for `sgd`.")
    layer_decay: float = keyword(
        1.0,
        "Factor on the learning rate per unit of the backbone, from the last unit (once) to the "
        "first; 1: off.",
        source="arXiv 2003.10555, 2106.08254",
        rule=NONZERO_FRACTION,
    )
    clip_norm: float = keyword(
        0.0, "Maximum global gradient norm; 0 disables clipping.", rule=NOT_NEGATIVE
    )
    multipliers: Multipliers


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule."""

    base_learning_rate: float = keyword(
        0.007, "Learning rate before the schedule, above 0.", source="DeepLab v3, section 4"
    )
    name: str = keyword(
        "poly",
        "Schedule: `poly`, `step`, `cosine` or `constant`.",
        legal=("poly", "step", "cosine", "constant"),
    )
    power: float = keyword(
        0.9,
        "Power of `poly`: (1 − step/num_steps)^power.",
        source="DeepLab v2, section 4.1.1",
    )
    steps_per_drop: int = keyword(
        2000,
        "Number of steps between two drops of the learning rate by `step`.",
        source="DeepLab v1, section 4.1",
    )
    drop_factor: float = keyword(
        0.1, "Factor on the learning rate at each drop by `step`, below 1."
    )
    warmup_steps: int = keyword(
        0,
        "Number of warm-up steps: the learning rate of step t (from 0) is multiplied by "
        "(t + 1)/warmup_steps; 0: no warm-up.",
        rule=COUNT,
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Validation during a run."""

    every_steps: int = keyword(
        1000, "Number of steps between evaluations; the last step is also evaluated.", rule=POSITIVE
    )
    batch_size: int = keyword(
        8, "Number of images per evaluation batch; does not change the metrics.", rule=POSITIVE
    )
    size: tuple[int, int] | None = keyword(
        None,
        "Height and width to pad all images to, as in the released code; unset: chosen for each "
        "image, as in `predict`.",
        unit="pixels",
    )
    limit: int | None = keyword(None, "Maximum number of images; unset: the whole split.")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Checkpoints of a run; the last one and the best one in validation are kept."""

    every_steps: int = keyword(1000, "Number of steps between checkpoints.", rule=POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Config fields of a training run, without the section `model`; see `Architecture` for it."""

    seed: int = keyword(0, "Seed of initialization, data order, augmentation and dropout, from 0.")
    data: Data
    augmentation: Augmentation
    strict_crop: bool = keyword(
        False, "Error instead of a warning for a crop that is not k·output_stride + 1."
    )
    training: Training
    parallel: Parallel
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    evaluation: Evaluation
    checkpoint: Checkpoint
    log_every_steps: int = keyword(
        50, "Number of steps between entries of metrics.jsonl and TensorBoard.", rule=POSITIVE
    )


def declared_fields(
    owner: type = Config, prefix: str = ""
) -> Iterator[tuple[str, type, dataclasses.Field[Any]]]:
    """Yields the declarations of the config fields outside the section `model`.

    Args:
      owner: class whose fields to list (default: all).
      prefix: prefix of the names, such as "optimizer.".

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
    """Yields (name, class, field) for every field in the section `model` of the config."""
    for owner in (Shorthands, Architecture):
        for field in dataclasses.fields(owner):
            if field.name not in NOT_IN_CONFIG:
                yield field.name, owner, field
