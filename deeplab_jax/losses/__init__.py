"""Losses on logits: pure functions of arrays."""

from deeplab_jax.losses.combined import (
    Loss,
    dense_kernels,
    kernels,
    l1_penalty,
    l2_penalty,
    weighted_sum,
    with_auxiliary,
)
from deeplab_jax.losses.cross_entropy import (
    focal_loss,
    hard_pixel_cross_entropy,
    hard_pixel_fraction,
    pixel_cross_entropy,
    softmax_cross_entropy,
)
from deeplab_jax.losses.distillation import distillation_loss
from deeplab_jax.losses.multi_scale import (
    multi_scale_cross_entropy,
    resized_cross_entropy,
    shrink_labels,
)
from deeplab_jax.losses.overlap import dice_loss, lovasz_softmax
from deeplab_jax.losses.targets import masked_label, pixel_mean, valid_pixels

__all__ = [
    "Loss",
    "dense_kernels",
    "dice_loss",
    "distillation_loss",
    "focal_loss",
    "hard_pixel_cross_entropy",
    "hard_pixel_fraction",
    "kernels",
    "l1_penalty",
    "l2_penalty",
    "lovasz_softmax",
    "masked_label",
    "multi_scale_cross_entropy",
    "pixel_cross_entropy",
    "pixel_mean",
    "resized_cross_entropy",
    "shrink_labels",
    "softmax_cross_entropy",
    "valid_pixels",
    "weighted_sum",
    "with_auxiliary",
]
