"""State that training carries from step to step, and how a fresh one is created."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import state_shardings

Variables = dict[str, Any]

# Number of parameters from which compiling `StateSpec.create` unoptimized does not pay on CPUs:
# ResNet-101's 60 million then take 9 s of processor time to draw, with minimal optimization 1 s,
# for 4 s more of compilation, which the cache keeps; MobileNetV2's 5 million 1.4 s, for 7 s more.
MANY_PARAMETERS = 20_000_000


@flax.struct.dataclass
class TrainState:
    """Everything that determines the next step, so that a saved state resumes bit for bit.

    Attributes:
      step: int32 scalar, number of updates done.
      variables: {"params", "batch_stats"}.
      optimizer_state: state of the Optax optimizer.
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


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """Network, optimizer and layout, which determine the form of a training state.

    Attributes:
      model: network to train.
      optimizer: transformation whose state is kept.
      mesh: devices that hold the state.
      crop_size: height and width of the training images, in pixels.
      keep_ema: whether averaged variables are kept.
      fsdp: whether kernels and optimizer state are sharded; see `state_shardings`.
    """

    model: DeepLab
    optimizer: optax.GradientTransformation
    mesh: Mesh
    crop_size: tuple[int, int]
    keep_ema: bool = False
    fsdp: bool = False

    def initialize(self, key: jax.Array) -> TrainState:
        """Returns a fresh state of the device that runs this."""
        shape = (1, *self.crop_size, self.model.architecture.in_channels)
        variables = self.model.init(key, jnp.zeros(shape, jnp.uint8))
        return with_variables({"batch_stats": {}} | variables, self.optimizer, self.keep_ema)

    def abstract(self) -> TrainState:
        """Returns the shapes, dtypes and shardings of a state, without any array."""
        shapes = jax.eval_shape(self.initialize, jax.random.key(0))
        return jax.tree.map(
            lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own),
            shapes,
            state_shardings(shapes, self.mesh, fsdp=self.fsdp),
        )

    def create(self, seed: int) -> TrainState:
        """Returns a fresh state, created directly with its shardings."""
        shapes, key = self.abstract(), jax.random.key(seed)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
        lowered = jax.jit(self.initialize, out_shardings=shardings).lower(key)
        # The program runs once: below a size, optimizing it on CPUs takes longer than it runs.
        options: dict[str, Any] | None = None
        if self.mesh.devices.flat[0].platform == "cpu":
            size = sum(leaf.size for leaf in jax.tree.leaves(shapes.variables))
            options = {"xla_backend_optimization_level": int(size >= MANY_PARAMETERS)}
        return lowered.compile(compiler_options=options)(key)


def with_variables(
    variables: Variables, optimizer: optax.GradientTransformation, keep_ema: bool
) -> TrainState:
    """Returns the state of a run that starts from these variables."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        optimizer_state=optimizer.init(variables["params"]),
        # Copied, because a donated buffer must not occur twice in the state.
        ema=jax.tree.map(jnp.copy, variables) if keep_ema else None,
    )
