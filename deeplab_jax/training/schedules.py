"""Learning rates by step: the papers' schedules, each with an optional linear warm-up."""

import jax
import jax.numpy as jnp
import optax

from deeplab_jax.errors import DeepLabError


def poly_schedule(
    base_learning_rate: float, num_steps: int, power: float = 0.9, warmup_steps: int = 0
) -> optax.Schedule:
    """Returns lr(t) = base·(1 − t/num_steps)^power, 0 from `num_steps` on.

    Args:
      base_learning_rate: at step 0 but for the warm-up.
      num_steps: of the training.
      power: of the falling line.
      warmup_steps: see `with_warmup`.

    Source: DeepLab v2, section 4.1.1.
    """

    def learning_rate(step: jax.Array | int) -> jax.Array:
        # Subtracted as integers. Compiled, optax.polynomial_schedule multiplies by a rounded 1/T
        # instead and so is NaN at the last step of many T, 30,000 among them.
        left = jnp.maximum(num_steps - step, 0) / num_steps
        return base_learning_rate * left**power

    return with_warmup(learning_rate, warmup_steps)


def step_schedule(
    base_learning_rate: float,
    steps_per_drop: int = 2000,
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> optax.Schedule:
    """Returns lr(t) = base·factor^⌊t/steps_per_drop⌋.

    Args:
      base_learning_rate: before the first drop.
      steps_per_drop: steps at one rate.
      factor: of each drop.
      warmup_steps: see `with_warmup`.

    Source: DeepLab v1, section 4.1: ×0.1 every 2,000 steps.
    """

    def learning_rate(step: jax.Array | int) -> jax.Array:
        # Divided as integers: optax.exponential_decay's staircase can drop a step late.
        return base_learning_rate * factor ** jnp.floor_divide(step, steps_per_drop)

    return with_warmup(learning_rate, warmup_steps)


def cosine_schedule(
    base_learning_rate: float, num_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Returns lr(t) = base·½·(1 + cos(π·t/num_steps)), 0 from `num_steps` on.

    Args:
      base_learning_rate: at step 0 but for the warm-up.
      num_steps: of the training.
      warmup_steps: see `with_warmup`.

    Source: arXiv 1608.03983, equation 5, without restarts.
    """
    return with_warmup(optax.cosine_decay_schedule(base_learning_rate, num_steps), warmup_steps)


def with_warmup(schedule: optax.Schedule, warmup_steps: int) -> optax.Schedule:
    """Returns lr(t)·min((t + 1)/warmup_steps, 1); the schedule itself for 0 steps.

    The factor is 1/warmup_steps at step 0 and reaches 1 at step warmup_steps − 1. It is never 0,
    because a step with a rate of 0 would learn nothing. The schedule's clock runs from the start,
    so its later values do not depend on the warm-up.

    Args:
      schedule: learning rate by step.
      warmup_steps: number of steps with a reduced rate, at least 0.

    Raises:
      DeepLabError: `warmup_steps` is negative.

    Source: arXiv 1706.02677, section 2.2 (gradual warm-up), with one step in place of an epoch.
    """
    if warmup_steps < 0:
        raise DeepLabError(f"schedule.warmup_steps={warmup_steps} must be at least 0")
    if warmup_steps == 0:
        return schedule
    return lambda step: schedule(step) * jnp.minimum((step + 1) / warmup_steps, 1)
