"""Losses put together."""

from collections.abc import Callable

import jax

from deeplab_jax.losses.targets import at_least_float32

# (logits, label, normalizer) → scalar.
Loss = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
    """Returns the loss (logits, label, normalizer) → Σ weight·loss.

    Args:
      terms: pairs of a weight and a loss, such as (1, softmax_cross_entropy), (0.5, dice_loss).
    """

    def loss(logits: jax.Array, label: jax.Array, normalizer: jax.Array | None = None) -> jax.Array:
        # Once for all terms: their gradients are then added before they are rounded.
        logits = at_least_float32(logits)
        return sum(weight * term(logits, label, normalizer) for weight, term in terms)

    return loss


def with_auxiliary(
    loss: Loss,
    logits: jax.Array,
    auxiliary: jax.Array | None,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    *,
    weight: float = 0.5,
) -> jax.Array:
    """Returns loss(logits) + weight·loss(auxiliary).

    Args:
      loss: of either, (logits, label, normalizer) → scalar.
      logits: [N, H, W, C].
      auxiliary: logits of an auxiliary head, [N, h, w, C], at a size that the loss takes with this
        label; None where the model has none.
      label, normalizer: what the loss takes.
      weight: of the auxiliary head.

    Source: arXiv 1612.01105, section 3.3; the weight is torchvision's.
    """
    total = loss(logits, label, normalizer)
    return total if auxiliary is None else total + weight * loss(auxiliary, label, normalizer)
