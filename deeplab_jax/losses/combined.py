"""Weighted sums of losses, and penalties on parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from deeplab_jax.losses.targets import Scalar, at_least_float32

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
        losses = (weight * term(logits, label, normalizer) for weight, term in terms)
        return sum(losses, jnp.zeros(()))

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


# Returns whether the parameter of these names, from the root to the leaf, belongs to the group.
Group = Callable[[tuple[str, ...]], bool]


def kernels(names: tuple[str, ...]) -> bool:
    """The group of all convolution kernels: no biases, no scales and offsets of normalisation."""
    return names[-1] == "kernel"


def dense_kernels(names: tuple[str, ...]) -> bool:
    """The group that the released code decays: convolution kernels that are not depthwise."""
    return kernels(names) and "depthwise" not in names


def l1_penalty(params: Any, strength: float, group: Group = dense_kernels) -> Scalar:
    """Returns strength·Σ|w| over the parameters of the group, a scalar."""
    # jnp.abs has a slope of 1 at 0, which would move weights that are gone.
    return strength * _total(params, group, lambda leaf: leaf * jnp.sign(leaf))


def l2_penalty(params: Any, strength: float, group: Group = dense_kernels) -> Scalar:
    """Returns strength·½·Σw² over the parameters of the group, a scalar.

    Its gradient is strength·w: with plain SGD the same as weight decay of that strength.

    Args:
      params: nested dicts of arrays.
      strength: the released code's weight decay.
      group: which of them; several groups of different strength are several penalties.
    """
    return strength / 2 * _total(params, group, jnp.square)


def _total(params: Any, group: Group, size: Callable[[jax.Array], jax.Array]) -> jax.Array:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    chosen = (leaf for path, leaf in leaves if group(tuple(key.key for key in path)))
    return sum((jnp.sum(size(at_least_float32(leaf))) for leaf in chosen), jnp.zeros(()))
