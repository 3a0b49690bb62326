"""The compiled and sharded training step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deeplab_jax import losses, ops
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import batch_sharding, replicated, sharded_over
from deeplab_jax.training.loss import Objective, Outputs
from deeplab_jax.training.optimizers import factors
from deeplab_jax.training.setup import Run
from deeplab_jax.training.state import TrainState, Variables


@dataclasses.dataclass(frozen=True)
class StepLayout:
    """Shardings of the arguments and results of a training step.

    Attributes:
      mesh: device mesh; None: the step runs on the device of its arguments.
      state_sharding: sharding of every array of the state; None: all replicated.
    """

    mesh: Mesh | None
    state_sharding: Any = None

    def batch(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Constrains the image rows of a batch to be sharded over the `spatial` axis."""
        with sharded_over(self.mesh):
            return ops.constrain_rows(batch)

    def variables(self, variables: Any) -> Any:
        """Replicates (all-gathers) all sharded variables, by a sharding constraint.

        Without this constraint, the compiler might gather feature maps, which are larger.
        """
        if self.state_sharding is None or self.mesh is None:
            return variables
        return jax.lax.with_sharding_constraint(variables, replicated(self.mesh))

    def gradients(self, gradients: Any) -> Any:
        """Constrains gradients to be sharded like the state (reduce-scatter, not all-reduce)."""
        if self.state_sharding is None:
            return gradients
        own = self.state_sharding.variables["params"]
        return jax.lax.with_sharding_constraint(gradients, own)

    def jit(self, step: Callable[..., Any]) -> "Step":
        """Jits a step (state, batch) → (state, metrics); the input state is donated."""
        if self.mesh is None:
            return jax.jit(step, donate_argnums=0)
        whole = replicated(self.mesh)
        own = whole if self.state_sharding is None else self.state_sharding
        return jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(own, batch_sharding(self.mesh)),
            out_shardings=(own, whole),
        )


Batch = dict[str, jax.Array]
# Jitted function (state, batch) → (state, metrics).
Step = jax.stages.Wrapped

# Number that is folded into the seed for the random keys of dropout. Initialization uses the seed
# itself.
DROPOUT_STREAM = 1


def make_train_step(
    model: DeepLab,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    objective: Objective,
    mesh: Mesh | None,
    *,
    state_sharding: Any = None,
    seed: int,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
    l1: float = 0.0,
    multipliers: Mapping[str, float] | None = None,
) -> Step:
    """Returns the jitted training step (state, batch) → (state, metrics).

    The batch is sharded over the mesh axis `data`, and the rows of its images over `spatial`. Loss
    and batch statistics are averages over all devices. The input state is donated. The metrics are
    the scalars `loss`, `learning_rate` and `gradient_norm`.

    Args:
      model, optimizer, learning_rate: network to train, its optimizer and schedule.
      objective: loss to minimize.
      mesh: device mesh of the step; None: the step runs on the device of its arguments.
      state_sharding: sharding of every array of the state; None: all arrays are replicated.
      seed: random seed of dropout.
      accumulation_steps: number of microbatches over which gradients are accumulated. Batch
        normalization, Dice, Lovász and hard-pixel losses are computed within each microbatch. Apart
        from them and from dropout, the gradient equals the gradient of the whole batch.
      ema_decay: decay of the moving average of the variables; ignored if the state has none.
      l1: weight of the L1 norm of all kernels that are not depthwise.
      multipliers: learning-rate multipliers, which `optimizer` applies. Gradients of
        parameters with multiplier 0 are set to 0, not computed. None: all gradients are computed.
    """
    layout = StepLayout(mesh, state_sharding)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, gradients, batch_stats = accumulated_gradients(
            model,
            layout,
            layout.variables(state.variables),
            layout.batch(batch),
            _dropout_key(seed, state.step),
            accumulation_steps,
            objective,
            state.step,
            multipliers,
        )
        params, gradients = state.variables["params"], layout.gradients(gradients)
        if l1:
            penalty, slopes = jax.value_and_grad(_penalty)(params, l1, multipliers)
            loss, gradients = loss + penalty, jax.tree.map(jnp.add, gradients, slopes)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, params)
        variables = {"params": optax.apply_updates(params, updates), "batch_stats": batch_stats}
        rate, norm = learning_rate(state.step), optax.tree.norm(gradients)
        metrics = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
        ema = None if state.ema is None else averaged(state.ema, variables, state.step, ema_decay)
        return TrainState(state.step + 1, variables, optimizer_state, ema), metrics

    return layout.jit(train_step)


def make_run_step(run: Run, state: TrainState) -> Step:
    """Returns the jitted training step of a run; see `make_train_step`.

    Args:
      run: training run.
      state: training state, or the shapes and shardings of its arrays.
    """
    config = run.config
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return make_train_step(
        run.model.clone(remat=config.training.remat),
        run.optimizer,
        run.learning_rate,
        run.objective,
        run.mesh,
        state_sharding=shardings if config.parallel.fsdp else None,
        seed=config.seed,
        accumulation_steps=config.training.accumulation_steps,
        ema_decay=config.training.ema_decay,
        l1=config.loss.l1,
        multipliers=config.optimizer.multipliers,
    )


def _dropout_key(seed: int, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), DROPOUT_STREAM), step)


def accumulated_gradients(
    model: DeepLab,
    layout: StepLayout,
    variables: Variables,
    batch: Batch,
    key: jax.Array,
    parts: int,
    objective: Objective,
    step: jax.Array,
    multipliers: Mapping[str, float] | None = None,
) -> tuple[jax.Array, Any, Any]:
    """Computes the loss and its gradients, accumulated over microbatches.

    Args:
      model: network to train.
      layout: shardings of the step.
      variables: `params` and `batch_stats`.
      batch: whole batch, which this function divides into microbatches.
      key: random key of dropout.
      parts: number of microbatches.
      objective: loss to minimize.
      step: number of completed training steps.
      multipliers: learning-rate multipliers, as in `make_train_step`.

    Returns:
      Loss, gradients of the parameters, and new batch statistics.
    """

    def part_loss(
        params: Any, batch_stats: Any, part: Batch, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        with sharded_over(layout.mesh, fsdp=layout.state_sharding is not None):
            outputs, changed = model.apply(
                {"params": _frozen(params, multipliers), "batch_stats": batch_stats},
                part["image"],
                train=True,
                endpoints=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
        loss = objective(Outputs(*outputs), part["label"], batch["label"], step)
        return loss, changed.get("batch_stats", batch_stats)

    gradient = jax.value_and_grad(part_loss, has_aux=True)
    params, batch_stats = variables["params"], variables["batch_stats"]
    if parts == 1:
        (loss, batch_stats), gradients = gradient(params, batch_stats, batch, key)
        return loss, gradients, batch_stats

    def add_part(carry: Any, indexed_part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        (total, gradients, batch_stats), (index, part) = carry, indexed_part
        part_key = jax.random.fold_in(key, index)
        (loss, batch_stats), more = gradient(params, batch_stats, part, part_key)
        gradients = layout.gradients(jax.tree.map(jnp.add, gradients, more))
        return (total + loss, gradients, batch_stats), None

    zeros = (jnp.zeros(()), layout.gradients(jax.tree.map(jnp.zeros_like, params)), batch_stats)
    split = jax.tree.map(lambda array: in_parts(array, parts), batch)
    (loss, gradients, batch_stats), _ = jax.lax.scan(add_part, zeros, (jnp.arange(parts), split))
    return loss, gradients, batch_stats


def _frozen(params: Any, multipliers: Mapping[str, float] | None) -> Any:
    """Stops the gradients of parameters whose learning-rate multiplier is 0.

    The backward pass then skips all layers before the first layer that is trained.
    """
    if multipliers is None or all(multipliers.values()):
        return params
    return jax.tree.map(
        lambda array, factor: array if factor else jax.lax.stop_gradient(array),
        params,
        factors(params, multipliers),
    )


def _penalty(params: Any, l1: float, multipliers: Mapping[str, float] | None) -> jax.Array:
    """Computes the L1 penalty, which has no gradient for frozen parameters."""
    return losses.l1_penalty(_frozen(params, multipliers), l1)


def in_parts(array: jax.Array, parts: int) -> jax.Array:
    """Reshapes [N, …] to [parts, N/parts, …] such that every part has examples on every device."""
    return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)


def averaged(ema: Variables, variables: Variables, step: jax.Array, decay: float) -> Variables:
    """Updates the moving average of the variables: decay·ema + (1 − decay)·variables.

    At step t, the smaller of `decay` and (1 + t)/(10 + t) is used. The initial values therefore
    have little weight, as in TensorFlow's ExponentialMovingAverage with `num_updates`.
    """
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + rate.astype(old.dtype) * (new - old), ema, variables)
