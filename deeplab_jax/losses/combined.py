"""Weighted sums of losses, and penalties on parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from deeplab_jax.losses.targets import Scalar, at_least_float32

# Loss function (logits, label, normalizer) → scalar.
Loss = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
    """Returns a loss function that is a weighted sum of losses.

    Args:
      *terms: pairs (weight, loss), such as (1, softmax_cross_entropy), (0.5, dice_loss).
    """

    def loss(logits: jax.Array, label: jax.Array, normalizer: jax.Array | None = None) -> jax.Array:
        # The logits are cast once for all terms, so that gradients are added before rounding.
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
    """Computes loss(logits) + weight·loss(auxiliary).

    Args:
      loss: loss function for both terms.
      logits: logits of the network, [N, H, W, C].
      auxiliary: logits of the auxiliary head, [N, h, w, C]; None for models without an auxiliary
        head. The size may differ from that of `logits` if `loss` accepts it for the same label.
      label, normalizer: further arguments of `loss`.
      weight: weight of the auxiliary loss.

    Source: arXiv 1612.01105, section 3.3; the weight is torchvision's.
    """
    total = loss(logits, label, normalizer)
    return total if auxiliary is None else total + weight * loss(auxiliary, label, normalizer)


# Selects parameters by their paths: takes the names from root to leaf.
Group = Callable[[tuple[str, ...]], bool]


def kernels(names: tuple[str, ...]) -> bool:
    """Returns whether a parameter is a convolution kernel, not a bias or part of a normalization.

    Args:
      names: names in the path of the parameter: all modules from the root down, then the parameter
        itself.
    """
    return names[-1] == "kernel"


def dense_kernels(names: tuple[str, ...]) -> bool:
    """Returns whether a parameter is the kernel of a convolution that is not depthwise.

    The released code applies weight decay only to such kernels.

    Args:
      names: names in the path of the parameter, see `kernels`.
    """
    # MobileNetV4 also has `first_depthwise`.
    return kernels(names) and not any(name.endswith("depthwise") for name in names)


def l1_penalty(params: Any, strength: float, group: Group = dense_kernels) -> Scalar:
    """Computes strength·Σ|w| over all values w of the parameters that `group` selects.

    Args:
      params: parameters, nested dicts of arrays.
      strength: factor of the penalty.
      group: function that returns whether to include a parameter, given the names in its path.
    """
    # The gradient of jnp.abs at 0 is 1, which would change pruned weights.
    return strength * _total(params, group, lambda leaf: leaf * jnp.sign(leaf))


def l2_penalty(params: Any, strength: float, group: Group = dense_kernels) -> Scalar:
    """Computes strength·½·Σw² over all values w of the parameters that `group` selects.

    The gradient is strength·w, so with plain SGD the penalty is equivalent to weight decay.

    Args:
      params: parameters, nested dicts of arrays.
      strength: factor of the penalty; corresponds to the weight decay of the released code.
      group: function that returns whether to include a parameter, given the names in its path.

    Returns:
      A scalar.
    """
    return strength / 2 * _total(params, group, jnp.square)


def _total(params: Any, group: Group, size: Callable[[jax.Array], jax.Array]) -> jax.Array:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    chosen = (leaf for path, leaf in leaves if group(tuple(key.key for key in path)))
    return sum((jnp.sum(size(at_least_float32(leaf))) for leaf in chosen), jnp.zeros(()))
