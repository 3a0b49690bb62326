"""The state that a run starts from: resumed, of another model, or fresh."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.parallel import place, state_shardings
from deeplab_jax.pretrained import locate
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.batches import run_batches
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.initialization import initialize_from, warn_of_conventions
from deeplab_jax.training.run import Run
from deeplab_jax.training.state import (
    TrainState,
    Variables,
    abstract_state,
    create_state,
    with_variables,
)
from deeplab_jax.training.unfolding import BATCHES, unfold_batch_norm


def initial_state(run: Run, checkpointer: Checkpointer, reporter: Reporter) -> TrainState:
    """Returns the state to start from: resumed, taken from another model, or fresh."""
    keep_ema = run.config.training.ema_decay > 0
    shapes = {"crop_size": run.augmentation.crop_size, "keep_ema": keep_ema}
    parts, fsdp = (run.model, run.optimizer, run.mesh), run.config.parallel.fsdp
    if checkpointer.latest_step is not None:
        state = checkpointer.restore(abstract_state(*parts, **shapes, fsdp=fsdp))
        reporter.message(f"going on from step {int(state.step)} of {run.workdir}")
        return state
    if not run.config.training.init_from:
        return create_state(*parts, seed=run.config.seed, **shapes, fsdp=fsdp)
    # Whole at first: a process looks at all of its values.
    fresh = create_state(*parts, seed=run.config.seed, **shapes).variables
    variables = jax.tree.map(np.asarray, _other_variables(run, fresh, reporter))
    state = with_variables(jax.tree.map(jnp.asarray, variables), run.optimizer, keep_ema)
    return place(state, state_shardings(state, run.mesh, fsdp=fsdp))


def _other_variables(run: Run, fresh: Variables, reporter: Reporter) -> Variables:
    """Returns the variables of `training.init_from`, ready to be trained."""
    training = run.config.training
    source = locate(training.init_from, reporter)
    start = initialize_from(fresh, source, reporter, training.init_parts)
    warn_of_conventions(run.model.architecture, source, reporter, training.init_parts)
    if not start.folded or run.model.architecture.frozen_batch_norm:
        return start.variables
    reporter.message(
        f"{len(start.folded)} batch normalisations were folded away: their statistics are "
        f"measured on {BATCHES} batches"
    )
    batches = itertools.islice(run_batches(run, first=0), BATCHES)
    images = (batch["image"] for batch in batches)
    return unfold_batch_norm(run.model, start.variables, start.folded, images, run.mesh)
