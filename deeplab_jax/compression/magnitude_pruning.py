"""Unstructured magnitude pruning during training (arXiv 1710.01878)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deeplab_jax.errors import DeepLabError
from deeplab_jax.training.setup import Run

# The final sparsity is reached after this fraction of the training steps.
PRUNING_FRACTION = 0.75
# Number of mask updates until the final sparsity is reached.
MASK_UPDATES = 20


class PruningState(NamedTuple):
    """State of the pruning optimizer.

    Attributes:
      count: number of training steps so far.
      masks: boolean arrays with the shapes of the parameters; False marks pruned weights.
      inner: state of the wrapped optimizer.
    """

    # The name is that of the states of Optax. It hides the method `count` of tuples.
    count: jax.Array  # type: ignore[assignment]
    masks: Any
    inner: optax.OptState


def cubic_sparsity(step: jax.Array, final: float, end: int) -> jax.Array:
    """Returns the sparsity at a step: final·(1 − (1 − step/end)³) up to `end`, then `final`.

    Source: arXiv 1710.01878, equation 1, with an initial sparsity of 0 at step 0.
    """
    left = jnp.maximum(end - step, 0) / max(end, 1)
    return final * (1 - left**3)


def prunable(path: tuple[jax.tree_util.DictKey, ...], array: jax.Array) -> bool:
    """Returns whether a parameter may be pruned.

    Only the kernels of convolutions that are not depthwise may be pruned.
    """
    return path[-1].key == "kernel" and array.ndim == 4 and array.shape[2] > 1


def smallest_pruned(kernel: jax.Array, sparsity: jax.Array) -> jax.Array:
    """Returns a mask of the weights to keep, with the shape of the kernel.

    The mask is False for the round(sparsity·n) weights with the smallest absolute values, where n
    is the number of weights.

    Args:
      kernel: weights of any shape.
      sparsity: fraction of the weights to prune, 0..1.
    """
    count = jnp.round(sparsity * kernel.size).astype(jnp.int32)
    order = jnp.argsort(jnp.abs(kernel).reshape(-1), stable=True)
    rank = jnp.zeros(kernel.size, jnp.int32).at[order].set(jnp.arange(kernel.size))
    return (rank >= count).reshape(kernel.shape)


def pruning_optimizer(
    optimizer: optax.GradientTransformation, sparsity: float, end: int, every: int = 1
) -> optax.GradientTransformation:
    """Wraps an optimizer so that the smallest weights of each dense kernel are set to exactly 0.

    A dense kernel is the kernel of a convolution that is not depthwise.

    Args:
      optimizer: optimizer whose updates are masked.
      sparsity: fraction of every dense kernel that is 0 from step `end` on.
      end: step at which the cubic schedule reaches `sparsity`.
      every: number of steps between mask updates. The masks are always updated at `end`, and do
        not change afterwards.
    """

    def init(params: Any) -> PruningState:
        masks = jax.tree.map(lambda array: jnp.ones(array.shape, bool), params)
        return PruningState(jnp.zeros((), jnp.int32), masks, optimizer.init(params))

    def update(gradients: Any, state: PruningState, params: Any = None) -> tuple[Any, PruningState]:
        updates, inner = optimizer.update(gradients, state.inner, params)
        step = state.count + 1
        due = (step <= end) & ((step % every == 0) | (step == end))
        share = cubic_sparsity(step, sparsity, end)

        def masked(
            path: tuple[jax.tree_util.DictKey, ...],
            array: jax.Array,
            change: jax.Array,
            mask: jax.Array,
        ) -> jax.Array:
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
    """Returns a training run that gradually prunes weights.

    Args:
      run: training run to modify.
      sparsity: fraction, in (0, 1), of the weights of each convolution kernel that are 0 after
        training. Depthwise kernels are not pruned.

    Raises:
      DeepLabError: the sparsity is not in (0, 1), or the config of the run has one of two settings:
        `training.ema_decay` above 0, because a moving average of the parameters would not be
        sparse; or `training.patience` above 0, because the run could then stop before the sparsity
        is reached.
    """
    if not 0 < sparsity < 1:
        raise DeepLabError(f"sparsity={sparsity:g} must be in (0, 1)")
    if run.config.training.ema_decay:
        raise DeepLabError(
            "pruning cannot be combined with a moving average of the parameters, which would not "
            "be sparse; give --config.training.ema_decay=0"
        )
    if run.config.training.patience:
        raise DeepLabError(
            "pruning cannot be combined with early stopping, which would end the training before "
            "the sparsity is reached; give --config.training.patience=0"
        )
    end = max(1, int(run.config.training.num_steps * PRUNING_FRACTION))
    optimizer = pruning_optimizer(run.optimizer, sparsity, end, every=max(1, end // MASK_UPDATES))
    adjustments = run.adjustments | {"sparsity": sparsity}
    return dataclasses.replace(run, optimizer=optimizer, adjustments=adjustments)


def sparsity_of(params: Any) -> float:
    """Returns the fraction of zeros, 0..1, in all convolution kernels that are not depthwise."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [np.ravel(array) for path, array in leaves if prunable(path, array)]
    return float(np.mean(np.concatenate(kernels) == 0))
