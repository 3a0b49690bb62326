"""Penalties on the size of parameters, by group."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from deeplab_jax.losses.targets import at_least_float32

# Whether the parameter of these names, from the root to the leaf, belongs to the group.
Group = Callable[[tuple[str, ...]], bool]


def kernels(names: tuple[str, ...]) -> bool:
    """The group of all convolution kernels: no biases, no scales and offsets of normalisation."""
    return names[-1] == "kernel"


def dense_kernels(names: tuple[str, ...]) -> bool:
    """The group that the released code decays: convolution kernels that are not depthwise."""
    return kernels(names) and "depthwise" not in names


def l1_penalty(params: Any, strength: float, group: Group = dense_kernels) -> jax.Array:
    """Returns strength·Σ|w| over the parameters of the group, a scalar."""
    # jnp.abs has a slope of 1 at 0, which would move weights that are gone.
    return strength * _total(params, group, lambda leaf: leaf * jnp.sign(leaf))


def l2_penalty(params: Any, strength: float, group: Group = dense_kernels) -> jax.Array:
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
