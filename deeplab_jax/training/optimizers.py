"""Optimisers and learning-rate schedules from their configs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from deeplab_jax.errors import DeepLabError, unknown_name

OPTIMIZERS = ("sgd", "adam", "adamw")


def poly_schedule(
    base_learning_rate: float, num_steps: int, power: float, warmup_steps: int = 0
) -> optax.Schedule:
    """Returns lr(t) = base·(1 − t/num_steps)^power, rising linearly from 0 over `warmup_steps`.

    Source: DeepLab v2, section 4.1.1.
    """

    def learning_rate(step: jax.Array) -> jax.Array:
        # Subtracted as integers: a share rounded below 0 would have no power.
        rate = base_learning_rate * (jnp.maximum(num_steps - step, 0) / num_steps) ** power
        if warmup_steps:
            rate = rate * jnp.minimum((step + 1) / warmup_steps, 1)
        return rate

    return learning_rate


def decayed_parameters(params: Any, decay_depthwise: bool) -> Any:
    """Returns a tree of booleans: True for the kernels that weight decay acts on.

    Normalisation's scales and offsets, biases and, in the released code, depthwise kernels are
    left out.
    """

    def decayed(path: tuple, _: jax.Array) -> bool:
        names = [key.key for key in path]
        return names[-1] == "kernel" and (decay_depthwise or "depthwise" not in names)

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(
    config: ConfigDict, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    """Returns the optimiser of `config.optimizer`.

    Weight decay adds wd·w to the gradient (L2); with `adamw` to the scaled update instead, as
    Adam's scaling would divide much of it away (arXiv 1711.05101).

    Raises:
      DeepLabError: the name is unknown or a constant out of range.
    """
    if config.name not in OPTIMIZERS:
        raise unknown_name("optimizer.name", config.name, OPTIMIZERS)
    if config.weight_decay < 0:
        raise DeepLabError(f"optimizer.weight_decay={config.weight_decay} must not be negative")
    decay = optax.add_decayed_weights(
        config.weight_decay,
        mask=lambda params: decayed_parameters(params, config.decay_depthwise),
    )
    descent = [optax.scale_by_learning_rate(learning_rate)]
    if any(factor != 1 for factor in config.multipliers.values()):
        descent.append(scale_by_part(config.multipliers))
    if config.name == "sgd":
        return optax.chain(decay, optax.trace(config.momentum), *descent)
    adam = optax.scale_by_adam(b1=config.momentum)
    return optax.chain(*((adam, decay) if config.name == "adamw" else (decay, adam)), *descent)


def scale_by_part(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns the transformation that multiplies each part's updates.

    Args:
      multipliers: of `backbone`, `head`, `decoder`, `classifier` and `auxiliary`; `bias` is of the
        biases of convolutions, on top of their part's.

    Raises:
      DeepLabError: one is negative.
    """
    for part, factor in multipliers.items():
        if factor < 0:
            raise DeepLabError(f"optimizer.multipliers.{part}={factor} must not be negative")

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        names = [key.key for key in path]
        factor = multipliers[names[0] if names[0] in multipliers else "head"]
        if names[-1] == "bias" and names[-2] != "norm":
            factor = factor * multipliers["bias"]
        return update * factor

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(scaled, updates)
    )
