"""Which fields a config has: type, default, unit, source and help of each, declared once."""

import dataclasses
from collections.abc import Iterator

from deeplab_jax.architecture import Architecture, Shorthands
from deeplab_jax.declarations import (
    ABOVE_ZERO,
    COUNT,
    FRACTION,
    NONZERO_FRACTION,
    POSITIVE,
    SIZE,
    keyword,
    kind,
)

# Keywords of a network that a run takes from its data set, or that training cannot have.
NOT_IN_CONFIG = ("num_classes", "in_channels", "quantization")
# Keywords that a config sets itself; the architecture or the backbone decides the others.
SET_IN_CONFIG = ("architecture", "dtype")


@dataclasses.dataclass(frozen=True)
class Data:
    """Data sets of a run."""

    name: str = keyword("", "Name of a prepared data set.")
    data_dir: str = keyword("data", "Directory in which `prepare` wrote the data set.")
    train_split: str = keyword("train", "Split to train on.")
    validation_split: str = keyword("val", "Split to validate on.")
    class_names: tuple[str, ...] | None = keyword(
        None, "Class names, for data sets that do not hold them."
    )
    oversample_classes: tuple[str, ...] | None = keyword(
        None, "Classes whose images come twice in training.", source="DeepLab v3, section 4.3"
    )
    workers: int = keyword(
        0, "Number of processes that decode and augment; 0: threads of this process."
    )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation in the order of the released code: resize, scale, pad, crop, flip."""

    crop_size: tuple[int, int] = keyword(
        (513, 513),
        "Height and width of the crop, each k·output_stride + 1.",
        unit="pixels",
        rule=SIZE,
    )
    min_scale: float = keyword(
        0.5, "Minimum scale factor.", source="DeepLab v3, section 4", rule=ABOVE_ZERO
    )
    max_scale: float = keyword(
        2.0, "Maximum scale factor.", source="DeepLab v3, section 4", rule=ABOVE_ZERO
    )
    scale_step: float = keyword(
        0.25, "Step between scale factors; 0: continuous.", source="released code"
    )
    min_resize: int = keyword(
        0,
        "Length to which the shorter side is resized before all else; 0: no limit.",
        unit="pixels",
        source="released code, for ADE20K",
        rule=COUNT,
    )
    max_resize: int = keyword(
        0,
        "Maximum length of the longer side after that resize; 0: no limit.",
        unit="pixels",
        rule=COUNT,
    )
    resize_factor: int = keyword(
        0,
        "Factor k of the sides, which are rounded up to a multiple of k plus 1; 0: any.",
        unit="pixels",
        rule=COUNT,
    )
    max_class_fraction: float = keyword(
        1.0,
        "Fraction of one class in a crop from which the crop is drawn again, up to ten times; 1: "
        "never.",
        source="mmsegmentation: 0.75",
        rule=NONZERO_FRACTION,
    )
    flip: bool = keyword(True, "Left-right flip with probability ½.")
    rotation: float = keyword(0.0, "Maximum rotation to either side; 0: off.", unit="degrees")
    photometric: float = keyword(0.0, "Strength of the color distortion, 0..1; 0: off.")


@dataclasses.dataclass(frozen=True)
class Training:
    """Length, batch, memory and start of a run."""

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
        0.0, "Decay of the averaged parameters that evaluation uses; 0: none.", rule=FRACTION
    )
    patience: int = keyword(
        0, "Number of evaluations without improvement before early stopping; 0: never."
    )
    remat: str = keyword(
        "none",
        "Maps that the backward pass computes again to save memory: `none`, `norm` (batch "
        "normalizations and activations) or `block` (all inside a unit of the backbone).",
        source="arXiv 1604.06174",
        legal=("none", "norm", "block"),
    )
    init_from: str = keyword("", "Published name, model directory or workdir to start from.")
    init_scope: str = keyword(
        "all",
        "Variables that are taken from it: `all` but the classifier of other classes; `backbone`; "
        "`matching`, whatever fits; `vgg_decimated`, with fc6 and fc7 cut out of VGG-16's.",
        source="DeepLab v1, section 3.2",
    )


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Mesh of data × spatial devices."""

    data: int = keyword(
        -1, "Number of devices (or groups of `spatial`) that share a batch; −1: all."
    )
    spatial: int = keyword(1, "Number of devices that image rows are sharded over.")
    fsdp: bool = keyword(
        False,
        "Sharding of kernels and optimizer state over `data` (FSDP).",
        source="arXiv 1910.02054",
    )


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weighted sum of losses; deeplab_jax/losses has each term's formula and source."""

    cross_entropy: float = keyword(1.0, "Weight of the cross-entropy.")
    focal: float = keyword(0.0, "Weight of the focal loss.", source="arXiv 1708.02002")
    dice: float = keyword(0.0, "Weight of the Dice loss.", source="arXiv 1606.04797")
    lovasz: float = keyword(0.0, "Weight of the Lovász-softmax.", source="arXiv 1705.08790")
    class_weights: tuple[float, ...] | None = keyword(
        None, "Weight of each class in the cross-entropy; unset: 1."
    )
    label_smoothing: float = keyword(0.0, "Label smoothing of the cross-entropy, 0..1.")
    focal_gamma: float = keyword(2.0, "Exponent γ of the focal loss.", source="arXiv 1708.02002")
    hard_pixel_fraction: float = keyword(
        1.0, "Fraction of the hardest pixels kept in the cross-entropy, 0..1."
    )
    hard_pixel_anneal_steps: int = keyword(
        0, "Number of steps over which that fraction falls from 1; 0: from the start."
    )
    upsample_logits: bool = keyword(
        True,
        "Upsampling of the logits to the label; False: the label is downsampled to the logits.",
        source="DeepLab v3, section 4.1; v1, v2: False",
    )
    chunk_rows: int = keyword(
        0,
        "Rows of the label whose logits are made at once, to save memory; 0: all. For "
        "cross-entropy alone, with upsampled logits.",
        unit="rows",
    )
    normalization: str = keyword(
        "pixels",
        "Mean over the batch's known pixels (`pixels`, v3) or of the images' own means (`images`, "
        "v2 on ResNet-101).",
    )
    supervise_all_scales: bool = keyword(
        False, "Loss of each scale beside that of the fused scores.", source="DeepLab v2, released"
    )
    auxiliary_weight: float = keyword(
        0.5, "Weight of the auxiliary head's loss.", source="torchvision"
    )
    l1: float = keyword(0.0, "Factor on the sum of the convolution kernels' absolute values.")


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """Factors on the learning rate by part; 0 leaves a part as it is.

    DeepLab v2 as released: classifier 10, bias 2 on top; on ResNet-101 norm 0.
    """

    backbone: float = keyword(1.0, "Factor of the backbone.")
    head: float = keyword(1.0, "Factor of all between backbone, decoder and classifiers.")
    decoder: float = keyword(1.0, "Factor of the decoder.")
    classifier: float = keyword(1.0, "Factor of the classifiers, also of those inside a head.")
    auxiliary: float = keyword(1.0, "Factor of the auxiliary head.")
    bias: float = keyword(1.0, "Factor of the convolutions' biases, on top of their part's.")
    norm: float = keyword(
        1.0, "Factor of the normalizations' scales and offsets, on top of their part's."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer of a run."""

    name: str = keyword(
        "sgd", "Optimizer: `sgd` (with momentum), `adam`, `adamw`, `lars` or `lamb`."
    )
    momentum: float = keyword(0.9, "Momentum of sgd, or decay of Adam's first moment.")
    weight_decay: float = keyword(
        4e-5, "Weight decay of convolution kernels.", source="released code"
    )
    decay_depthwise: bool = keyword(
        False, "Weight decay of depthwise kernels too.", source="released code: False"
    )
    nesterov: bool = keyword(False, "Nesterov momentum of sgd.")
    clip_norm: float = keyword(0.0, "Maximum global gradient norm; 0 disables clipping.")
    multipliers: Multipliers


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule of a run."""

    base_learning_rate: float = keyword(
        0.007, "Learning rate at the start.", source="DeepLab v3, section 4"
    )
    name: str = keyword("poly", "Schedule: `poly`, `step`, `cosine` or `constant`.")
    power: float = keyword(
        0.9,
        "Power of `poly`: (1 − step/num_steps)^power.",
        source="DeepLab v2, section 4.1.1",
    )
    steps_per_drop: int = keyword(
        2000, "Number of steps between drops of `step`.", source="DeepLab v1, section 4.1"
    )
    drop_factor: float = keyword(0.1, "Factor of each drop of `step`.")
    warmup_steps: int = keyword(
        0,
        "Number of first steps in which the rate rises linearly: step t (from 0) has the fraction "
        "(t + 1)/warmup_steps of its scheduled rate; 0: no warm-up.",
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Validation during a run."""

    every_steps: int = keyword(
        1000, "Number of steps between evaluations; one more follows the last.", rule=POSITIVE
    )
    batch_size: int = keyword(
        8, "Number of images per batch; does not change the numbers.", rule=POSITIVE
    )
    size: tuple[int, int] | None = keyword(
        None,
        "Height and width that all images are padded to, as the released code does; unset: a size "
        "that follows from each image's own, as in `predict`.",
        unit="pixels",
    )
    limit: int | None = keyword(None, "Maximum number of images; unset: the whole split.")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Checkpoints of a run: the best by validation and the last are kept."""

    every_steps: int = keyword(1000, "Number of steps between checkpoints.", rule=POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Fields of a training run; the section `model` holds the keywords of `Architecture`."""

    seed: int = keyword(0, "Seed of initialization, data order, augmentation and dropout.")
    data: Data
    augmentation: Augmentation
    strict_crop: bool = keyword(
        False, "Refusal of a crop that is not k·output_stride + 1, instead of a warning."
    )
    training: Training
    parallel: Parallel
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    evaluation: Evaluation
    checkpoint: Checkpoint
    log_every_steps: int = keyword(
        50, "Number of steps between lines of metrics.jsonl and TensorBoard.", rule=POSITIVE
    )


def declared_fields(
    owner: type = Config, prefix: str = ""
) -> Iterator[tuple[str, type, dataclasses.Field]]:
    """Yields dotted name, class and field of every config field but those of the section `model`.

    Args:
      owner: class whose fields are listed.
      prefix: of the names, as in "optimizer.".
    """
    for field in dataclasses.fields(owner):
        section = kind(owner, field)
        if dataclasses.is_dataclass(section):
            yield from declared_fields(section, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, owner, field


def model_fields() -> Iterator[tuple[str, type, dataclasses.Field]]:
    """Yields name, class and field of every keyword in the config's section `model`."""
    for owner in (Shorthands, Architecture):
        for field in dataclasses.fields(owner):
            if field.name not in NOT_IN_CONFIG:
                yield field.name, owner, field
