"""A student's distance from its teacher (arXiv 1503.02531)."""

import jax
import jax.numpy as jnp

from deeplab_jax.arrays import Array, Float, Shaped
from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses.cross_entropy import log_softmax
from deeplab_jax.losses.targets import Label, Scalar, known_pixels, pixel_mean


def distillation_loss(
    logits: Float[Array, "N H W C"],
    teacher_logits: Shaped[Array, "..."],
    label: Label,
    normalizer: jax.Array | None = None,
    temperature: float = 1.0,
) -> Scalar:
    """Returns τ²·KL(softmax(teacher/τ) ‖ softmax(logits/τ)), the mean over the non-void pixels.

    τ² keeps the gradient's size when τ changes, so that its weight beside other losses need not.

    Args:
      logits: [N, H, W, C], floating point.
      teacher_logits: of the same shape; no gradient goes through them.
      label: decides which pixels are void; see `softmax_cross_entropy`.
      normalizer: what to divide by instead, such as the pixels of a whole batch.
      temperature: τ > 0; the higher, the more the teacher's less likely classes count.

    Returns:
      A scalar; 0 where every pixel is void.

    Raises:
      DeepLabError: the shapes differ.

    Source: arXiv 1503.02531, sections 2 and 2.1.
    """
    if logits.shape != teacher_logits.shape:
        raise DeepLabError(
            f"student's logits {list(logits.shape)} and teacher's {list(teacher_logits.shape)} "
            "differ; both must have the same classes and pixels"
        )
    log_student = log_softmax(logits / temperature)
    log_teacher = log_softmax(jax.lax.stop_gradient(teacher_logits) / temperature)
    # A class that the teacher rules out, with a logit of −∞, counts nothing.
    teacher = jnp.exp(log_teacher)
    terms = jnp.where(teacher > 0, teacher * (log_teacher - log_student), 0)
    num_classes = logits.shape[-1]
    losses = jnp.where(known_pixels(label, num_classes), jnp.sum(terms, axis=-1), 0)
    return temperature**2 * pixel_mean(losses, label, normalizer, num_classes)
