"""The step that a run trains with; planning compiles the same one for other hardware."""

import jax

from deeplab_jax.training.run import Run
from deeplab_jax.training.state import TrainState
from deeplab_jax.training.step import Step, make_train_step


def make_run_step(run: Run, state: TrainState) -> Step:
    """Returns the jitted step of a run; see `make_train_step`.

    Args:
      run: what to train.
      state: arrays, or their shapes, with the shardings that the step gets and gives.
    """
    config = run.config
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return make_train_step(
        run.model,
        run.optimizer,
        run.learning_rate,
        run.objective,
        run.mesh,
        state_sharding=shardings if config.parallel.fsdp else None,
        seed=config.seed,
        accumulation_steps=config.training.accumulation_steps,
        ema_decay=config.training.ema_decay,
        l1=config.loss.l1,
        rematerialize=config.training.rematerialize,
    )
