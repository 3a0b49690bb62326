"""Distillation loss: KL divergence between teacher and student (arXiv 1503.02531)."""

import jax
import jax.numpy as jnp

from deeplab_jax.arrays import Array, Float, Shaped
from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses.cross_entropy import log_softmax
from deeplab_jax.losses.targets import Label, Scalar, at_least_float32, pixel_mean, valid_mask


def distillation_loss(
    logits: Float[Array, "N H W C"],
    teacher_logits: Shaped[Array, "..."],
    label: Label,
    normalizer: jax.Array | None = None,
    temperature: float = 1.0,
) -> Scalar:
    """Computes τ²·KL(softmax(teacher/τ) ‖ softmax(logits/τ)), averaged over the valid pixels.

    The factor τ² makes the magnitude of the gradient roughly independent of τ.

    Args:
      logits: logits of the student, [N, H, W, C], floating point.
      teacher_logits: logits of the teacher, of the same shape; their gradient is stopped.
      label: hard label [N, H, W] or soft label [N, H, W, C], used only to find void pixels.
      normalizer: divisor instead of the number of valid pixels, see `softmax_cross_entropy`.
      temperature: τ > 0; larger values give more weight to classes for which the teacher
        predicts a low probability.

    Returns:
      A scalar, 0 if all pixels are void.

    Raises:
      DeepLabError: student and teacher logits have different shapes.

    Source: arXiv 1503.02531, sections 2 and 2.1.
    """
    if logits.shape != teacher_logits.shape:
        raise DeepLabError(
            f"the logits of student and teacher must have the same shape, got {list(logits.shape)} "
            f"and {list(teacher_logits.shape)}"
        )
    teacher_logits = at_least_float32(jax.lax.stop_gradient(teacher_logits))
    # In bfloat16, the division by the temperature would round the logits again.
    log_student = log_softmax(at_least_float32(logits) / temperature)
    log_teacher = log_softmax(teacher_logits / temperature)
    # Classes for which the teacher logit is −∞ do not contribute.
    teacher = jnp.exp(log_teacher)
    terms = jnp.where(teacher > 0, teacher * (log_teacher - log_student), 0)
    num_classes = logits.shape[-1]
    losses = jnp.where(valid_mask(label, num_classes), jnp.sum(terms, axis=-1), 0)
    return temperature**2 * pixel_mean(losses, label, normalizer, num_classes)
