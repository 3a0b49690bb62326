"""Training state, and its initialization."""

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

# Number of parameters from which the compiler optimizes `StateSpec.create` on CPUs. For ResNet-101
# (60 million), this takes 4 s more of compilation, once, and reduces initialization from 9 s to
# 1 s. For MobileNetV2 (5 million) it takes 7 s more, and initialization takes 1.4 s anyway.
MANY_PARAMETERS = 20_000_000


@flax.struct.dataclass
class TrainState:
    """Training state: everything that a run needs in order to resume with identical results.

    Attributes:
      step: int32 scalar, number of training steps done.
      variables: dict with `params` and `batch_stats`.
      optimizer_state: state of the Optax optimizer.
      ema: moving average of the variables, or None.
    """

    step: jax.Array
    variables: Variables
    optimizer_state: optax.OptState
    ema: Variables | None

    @property
    def evaluated(self) -> Variables:
        """Variables that evaluation uses: their moving average if there is one."""
        return self.variables if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """Specification of a training state, from which it can be created.

    Attributes:
      model: network to train.
      optimizer: Optax optimizer.
      mesh: device mesh.
      crop_size: height and width of the training images, in pixels.
      keep_ema: whether the state has a moving average of the variables.
      fsdp: whether kernels and optimizer state are sharded; see `state_shardings`.
    """

    model: DeepLab
    optimizer: optax.GradientTransformation
    mesh: Mesh
    crop_size: tuple[int, int]
    keep_ema: bool = False
    fsdp: bool = False

    def initialize(self, key: jax.Array) -> TrainState:
        """Returns an initial state, without sharding."""
        shape = (1, *self.crop_size, self.model.architecture.in_channels)
        variables = self.model.init(key, jnp.zeros(shape, jnp.uint8))
        return with_variables({"batch_stats": {}} | variables, self.optimizer, self.keep_ema)

    def abstract(self) -> TrainState:
        """Returns the shape, dtype and sharding of every array in the state."""
        shapes = jax.eval_shape(self.initialize, jax.random.key(0))
        return jax.tree.map(
            lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own),
            shapes,
            state_shardings(shapes, self.mesh, fsdp=self.fsdp),
        )

    def create(self, seed: int) -> TrainState:
        """Returns an initial state; each device creates only its own shards."""
        shapes, key = self.abstract(), jax.random.key(seed)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
        lowered = jax.jit(self.initialize, out_shardings=shardings).lower(key)
        # The program runs only once. For small networks, optimizing it on CPUs takes longer.
        options: dict[str, Any] | None = None
        if self.mesh.devices.flat[0].platform == "cpu":
            size = sum(leaf.size for leaf in jax.tree.leaves(shapes.variables))
            options = {"xla_backend_optimization_level": int(size >= MANY_PARAMETERS)}
        return lowered.compile(compiler_options=options)(key)


def with_variables(
    variables: Variables, optimizer: optax.GradientTransformation, keep_ema: bool
) -> TrainState:
    """Returns the initial state of a run that starts from given variables."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        optimizer_state=optimizer.init(variables["params"]),
        # Copied, because the state is donated and must not have the same buffer twice.
        ema=jax.tree.map(jnp.copy, variables) if keep_ema else None,
    )
