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
        # Cast once for all terms, so that their gradients are added before rounding.
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
      loss: loss applied to both, (logits, label, normalizer) → scalar.
      logits: [N, H, W, C].
      auxiliary: logits of an auxiliary head, [N, h, w, C], at a size that the loss accepts with
        this label; None for models without one.
      label, normalizer: arguments of the loss.
      weight: weight of the auxiliary loss.

    Source: arXiv 1612.01105, section 3.3; the weight is torchvision's.
    """
    total = loss(logits, label, normalizer)
    return total if auxiliary is None else total + weight * loss(auxiliary, label, normalizer)


# Predicate of a parameter's path, from root to leaf, that selects a group of parameters.
Group = Callable[[tuple[str, ...]], bool]


def kernels(names: tuple[str, ...]) -> bool:
    """Selects all convolution kernels, but no biases and no parameters of normalization."""
    return names[-1] == "kernel"


def dense_kernels(names: tuple[str, ...]) -> bool:
    """Selects convolution kernels that are not depthwise, which the released code decays."""
    return kernels(names) and "depthwise" not in names


def l1_penalty(params: Any, strength: float, group: Group = dense_kernels) -> Scalar:
    """Returns strength·Σ|w| over the parameters of the group, a scalar."""
    # The gradient of jnp.abs at 0 is 1, which would move pruned weights.
    return strength * _total(params, group, lambda leaf: leaf * jnp.sign(leaf))


def l2_penalty(params: Any, strength: float, group: Group = dense_kernels) -> Scalar:
    """Returns strength·½·Σw² over the parameters of the group, a scalar.

    The gradient is strength·w; with plain SGD this equals weight decay of that strength.

    Args:
      params: nested dicts of arrays.
      strength: weight decay of the released code.
      group: predicate that selects parameters; use one penalty per group of equal strength.
    """
    return strength / 2 * _total(params, group, jnp.square)


def _total(params: Any, group: Group, size: Callable[[jax.Array], jax.Array]) -> jax.Array:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    chosen = (leaf for path, leaf in leaves if group(tuple(key.key for key in path)))
    return sum((jnp.sum(size(at_least_float32(leaf))) for leaf in chosen), jnp.zeros(()))
