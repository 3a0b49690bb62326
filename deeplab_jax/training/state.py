"""State that training carries from step to step, and how a fresh one is created."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import state_shardings

Variables = dict[str, Any]

# Number of parameters from which compiling `create_state` unoptimized does not pay on CPUs:
# ResNet-101's 60 million then take 9 s of processor time to draw, with the least optimisation 1 s,
# for 4 s more of compilation, which the cache keeps; MobileNetV2's 5 million 1.4 s, for 7 s more.
MANY_PARAMETERS = 20_000_000


@flax.struct.dataclass
class TrainState:
    """All that decides the next step, so that a saved state goes on bit for bit.

    Attributes:
      step: int32 scalar, number of updates done.
      variables: {"params", "batch_stats"}.
      optimizer_state: of Optax.
      ema: averaged variables of the same form, or None.
    """

    step: jax.Array
    variables: Variables
    optimizer_state: optax.OptState
    ema: Variables | None

    @property
    def evaluated(self) -> Variables:
        """The variables that evaluation uses: the averaged ones where they are kept."""
        return self.variables if self.ema is None else self.ema


def create_state(
    model: DeepLab,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    crop_size: tuple[int, int],
    keep_ema: bool,
    fsdp: bool = False,
) -> TrainState:
    """Returns a fresh state whose arrays are born where the mesh wants them."""
    initialize = _initializer(model, optimizer, crop_size, keep_ema)
    shapes = jax.eval_shape(initialize, jax.random.key(seed))
    shardings = state_shardings(shapes, mesh, fsdp=fsdp)
    lowered = jax.jit(initialize, out_shardings=shardings).lower(jax.random.key(seed))
    # It runs once: on CPUs making this program fast takes longer than it ever runs, up to a size.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes.variables))
    options: Any = None
    if on_cpu:
        options = {"xla_backend_optimization_level": int(size >= MANY_PARAMETERS)}
    return lowered.compile(compiler_options=options)(jax.random.key(seed))


def abstract_state(
    model: DeepLab,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    crop_size: tuple[int, int],
    keep_ema: bool,
    fsdp: bool = False,
) -> TrainState:
    """Returns the shapes, dtypes and shardings of a state, without any array."""
    initialize = _initializer(model, optimizer, crop_size, keep_ema)
    shapes = jax.eval_shape(initialize, jax.random.key(0))
    return jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own),
        shapes,
        state_shardings(shapes, mesh, fsdp=fsdp),
    )


def _initializer(
    model: DeepLab,
    optimizer: optax.GradientTransformation,
    crop_size: tuple[int, int],
    keep_ema: bool,
) -> Callable[[jax.Array], TrainState]:
    def initialize(key: jax.Array) -> TrainState:
        shape = (1, *crop_size, model.architecture.in_channels)
        variables = model.init(key, jnp.zeros(shape, jnp.uint8))
        return with_variables({"batch_stats": {}} | variables, optimizer, keep_ema)

    return initialize


def with_variables(
    variables: Variables, optimizer: optax.GradientTransformation, keep_ema: bool
) -> TrainState:
    """Returns the state of a run that starts from these variables."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        optimizer_state=optimizer.init(variables["params"]),
        # Copies: a donated buffer must not be two leaves of the state.
        ema=jax.tree.map(jnp.copy, variables) if keep_ema else None,
    )
