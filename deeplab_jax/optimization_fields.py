"""Config fields of the loss, the optimizer and the learning-rate schedule."""

import dataclasses

from deeplab_jax.declarations import (
    CLASS_WEIGHTS,
    COUNT,
    FRACTION,
    NONZERO_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    keyword,
)


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weighted sum of losses; deeplab_jax/losses contains the formula and source of each loss."""

    cross_entropy: float = keyword(1.0, "Weight of the cross-entropy; 0: off.", rule=NOT_NEGATIVE)
    focal: float = keyword(
        0.0, "Weight of the focal loss; 0: off.", source="arXiv 1708.02002", rule=NOT_NEGATIVE
    )
    dice: float = keyword(
        0.0, "Weight of the Dice loss; 0: off.", source="arXiv 1606.04797", rule=NOT_NEGATIVE
    )
    lovasz: float = keyword(
        0.0,
        "Weight of the Lovász-softmax loss; 0: off.",
        source="arXiv 1705.08790",
        rule=NOT_NEGATIVE,
    )
    class_weights: tuple[float, ...] | None = keyword(
        None,
        "Weight of each class in the cross-entropy, at least 0; unset: 1 for all.",
        rule=CLASS_WEIGHTS,
    )
    label_smoothing: float = keyword(
        0.0, "Label smoothing of the cross-entropy, in [0, 1).", rule=FRACTION
    )
    focal_gamma: float = keyword(
        2.0,
        "Exponent γ of the focal loss, at least 0.",
        source="arXiv 1708.02002",
        rule=NOT_NEGATIVE,
    )
    hard_pixel_fraction: float = keyword(
        1.0,
        "Fraction of the pixels that the cross-entropy uses: those with the largest losses; in "
        "(0, 1].",
        rule=NONZERO_FRACTION,
    )
    hard_pixel_anneal_steps: int = keyword(
        0,
        "Number of training steps in which the fraction of used pixels falls from 1 to "
        "`hard_pixel_fraction`; 0: the fraction is constant.",
        rule=COUNT,
    )
    upsample_logits: bool = keyword(
        True,
        "Upsampling of the logits to the label size; False: downsampling of the label to the size "
        "of the logits.",
        source="DeepLab v3, section 4.1; v1, v2: False",
    )
    chunk_rows: int = keyword(
        0,
        "Number of label rows for which the loss is computed at a time, to save memory; 0: all "
        "rows. Requires cross-entropy as the only loss, and `upsample_logits`.",
        unit="rows",
        rule=COUNT,
    )
    normalization: str = keyword(
        "pixels",
        "Normalization of the loss. `pixels` (v3): mean over all labeled pixels of the batch; "
        "`images` (v2 on ResNet-101): mean over the labeled pixels of each image, then mean over "
        "the images.",
        legal=("pixels", "images"),
    )
    supervise_all_scales: bool = keyword(
        False,
        "Loss on the scores at each scale of `model.multi_scale`, in addition to the loss on the "
        "fused scores.",
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
    """Declares a config field with the learning-rate multiplier of one part of the network."""
    return keyword(1.0, f"Learning-rate multiplier of {part}; 0: frozen.", rule=NOT_NEGATIVE)


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """Learning-rate multipliers of the parts of the network; 0 freezes a part.

    The released code of DeepLab v2 uses `classifier=10`, `bias=2` and, for ResNet-101, `norm=0`.
    """

    backbone: float = _factor("the backbone")
    head: float = _factor("the head, without its classifiers")
    decoder: float = _factor("the decoder")
    classifier: float = _factor("all classifiers, including those inside a head")
    auxiliary: float = _factor("the auxiliary head")
    bias: float = _factor(
        "convolution biases, in addition to the multiplier of the part that contains the bias"
    )
    norm: float = _factor(
        "normalization scales and offsets, in addition to the multiplier of the part that contains "
        "the normalization"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer, and the learning-rate multipliers of the parts of the network."""

    name: str = keyword(
        "sgd",
        "Optimizer: `sgd` (with momentum), `adam`, `adamw`, `lars` or `lamb`.",
        legal=("sgd", "adam", "adamw", "lars", "lamb"),
    )
    momentum: float = keyword(
        0.9,
        "Momentum of `sgd` and `lars`, or decay of the first moment of `adam`, `adamw` and `lamb`, "
        "in [0, 1).",
        rule=FRACTION,
    )
    weight_decay: float = keyword(
        4e-5,
        "Weight decay of convolution kernels; 0: off.",
        source="released code",
        rule=NOT_NEGATIVE,
    )
    decay_depthwise: bool = keyword(
        False,
        "Weight decay of all convolution kernels; False: of all except depthwise kernels.",
        source="released code: False",
    )
    nesterov: bool = keyword(False, "Nesterov momentum for `sgd` and `lars`.")
    layer_decay: float = keyword(
        1.0,
        "Layer-wise decay of the learning rate in the backbone. The learning rate of the n-th unit "
        "from the end (last unit: n = 1) is multiplied by layer_decay^n. 1: off.",
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
        0.007,
        "Learning rate at the start of the schedule, without warm-up; at least 0.",
        source="DeepLab v3, section 4",
        rule=NOT_NEGATIVE,
    )
    name: str = keyword(
        "poly",
        "Schedule: `poly`, `step`, `cosine` or `constant`.",
        legal=("poly", "step", "cosine", "constant"),
    )
    power: float = keyword(
        0.9,
        "Power of the schedule `poly`, which multiplies the learning rate by "
        "(1 − step/num_steps)^power; at least 0.",
        source="DeepLab v2, section 4.1.1",
        rule=NOT_NEGATIVE,
    )
    steps_per_drop: int = keyword(
        2000,
        "Number of training steps between two drops of the learning rate in the schedule `step`.",
        source="DeepLab v1, section 4.1",
        rule=POSITIVE,
    )
    drop_factor: float = keyword(
        0.1,
        "Factor, in (0, 1], by which each drop multiplies the learning rate in the schedule "
        "`step`.",
        rule=NONZERO_FRACTION,
    )
    warmup_steps: int = keyword(
        0,
        "Number of warm-up steps: the learning rate of step t (from 0) is multiplied by "
        "(t + 1)/warmup_steps; 0: no warm-up.",
        rule=COUNT,
    )
