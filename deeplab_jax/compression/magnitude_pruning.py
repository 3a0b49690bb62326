"""Unstructured pruning by magnitude during training (arXiv 1710.01878)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deeplab_jax.errors import DeepLabError
from deeplab_jax.training.setup import Run

# Of the training: pruning begins with it and has come to its end after this share.
PRUNING_SHARE = 0.75
# Masks are made anew so often.
TIMES = 20


class PruningState(NamedTuple):
    """State of the optimiser that prunes.

    Attributes:
      count: updates done.
      masks: booleans like the parameters: False for what is pruned.
      inner: state of the optimiser that it wraps.
    """

    count: jax.Array
    masks: Any
    inner: optax.OptState


def cubic_sparsity(step: jax.Array, final: float, end: int) -> jax.Array:
    """Returns final·(1 − (1 − step/end)³), and `final` from `end` on.

    Source: arXiv 1710.01878, equation 1, from no sparsity at step 0.
    """
    left = jnp.maximum(end - step, 0) / max(end, 1)
    return final * (1 - left**3)


def prunable(path: tuple, array: jax.Array) -> bool:
    """Whether a parameter is a dense kernel; depthwise ones are few, and each is a whole filter."""
    return path[-1].key == "kernel" and array.ndim == 4 and array.shape[2] > 1


def smallest_pruned(kernel: jax.Array, sparsity: jax.Array) -> jax.Array:
    """Returns the mask that leaves out round(sparsity·n) numbers, those nearest 0.

    Args:
      kernel: of any shape, of n numbers.
      sparsity: share, 0..1.
    """
    count = jnp.round(sparsity * kernel.size).astype(jnp.int32)
    order = jnp.argsort(jnp.abs(kernel).reshape(-1), stable=True)
    rank = jnp.zeros(kernel.size, jnp.int32).at[order].set(jnp.arange(kernel.size))
    return (rank >= count).reshape(kernel.shape)


def pruning_optimizer(
    optimizer: optax.GradientTransformation, sparsity: float, end: int, every: int = 1
) -> optax.GradientTransformation:
    """Returns an optimiser after whose updates the smallest weights of each kernel are exactly 0.

    Args:
      optimizer: whose updates are masked.
      sparsity: share of every dense kernel that is 0 from step `end` on.
      end: step at which the cubic schedule has come to `sparsity`.
      every: steps between two masks; at `end` there is one in any case.
    """

    def init(params: Any) -> PruningState:
        masks = jax.tree.map(lambda array: jnp.ones(array.shape, bool), params)
        return PruningState(jnp.zeros((), jnp.int32), masks, optimizer.init(params))

    def update(gradients: Any, state: PruningState, params: Any = None) -> tuple:
        updates, inner = optimizer.update(gradients, state.inner, params)
        step = state.count + 1
        due = (step <= end) & ((step % every == 0) | (step == end))
        share = cubic_sparsity(step, sparsity, end)

        def masked(path: tuple, array: jax.Array, change: jax.Array, mask: jax.Array) -> jax.Array:
            if not prunable(path, array):
                return mask
            return jax.lax.cond(
                due, lambda: smallest_pruned((array + change) * mask, share), lambda: mask
            )

        masks = jax.tree_util.tree_map_with_path(masked, params, updates, state.masks)
        updates = jax.tree.map(
            lambda change, array, mask: jnp.where(mask, change, -array), updates, params, masks
        )
        return updates, PruningState(step, masks, inner)

    return optax.GradientTransformation(init, update)


def pruned_gradually(run: Run, sparsity: float) -> Run:
    """Returns the run with an optimiser that prunes.

    Raises:
      DeepLabError: the sparsity is illegal, or the run keeps averages, which are not sparse.
    """
    if not 0 < sparsity < 1:
        raise DeepLabError(f"sparsity={sparsity:g} must be in (0, 1)")
    if run.config.training.ema_decay:
        raise DeepLabError("averaged parameters are not sparse; give --config.training.ema_decay=0")
    end = max(1, int(run.config.training.num_steps * PRUNING_SHARE))
    optimizer = pruning_optimizer(run.optimizer, sparsity, end, every=max(1, end // TIMES))
    return dataclasses.replace(run, optimizer=optimizer)


def sparsity_of(params: Any) -> float:
    """Returns the share of zeros among all numbers of the dense kernels."""
    kernels = [
        np.asarray(array)
        for path, array in jax.tree_util.tree_leaves_with_path(params)
        if prunable(path, array)
    ]
    zeros = sum(kernel.size - np.count_nonzero(kernel) for kernel in kernels)
    return zeros / sum(kernel.size for kernel in kernels)
