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

# On CPUs, the compiler optimizes `StateSpec.create` only for networks with at least this number of
# parameters. For ResNet-101 (60 million), optimization adds 4 s to compilation, which is cached,
# and reduces initialization from 9 s to 1 s. For MobileNetV2 (5 million), it would add 7 s, and
# initialization takes 1.4 s without it.
MANY_PARAMETERS = 20_000_000


@flax.struct.dataclass
class TrainState:
    """Training state, from which a run can be resumed with identical results.

    Attributes:
      step: int32 scalar, number of completed training steps.
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
        """Variables for evaluation: `ema`, or `variables` if the state has no moving average."""
        return self.variables if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """Specification from which a training state is created.

    Attributes:
      model: network to train.
      optimizer: Optax optimizer.
      mesh: device mesh.
      crop_size: height and width of the training images, in pixels.
      keep_ema: whether the state has a moving average of the variables.
      fsdp: whether large kernels and their optimizer state are sharded; see `state_shardings`.
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
    """Returns the initial state of a run that starts from given variables.

    Args:
      variables: dict with `params` and `batch_stats`.
      optimizer: Optax optimizer.
      keep_ema: whether the state has a moving average of the variables.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        optimizer_state=optimizer.init(variables["params"]),
        # The variables are copied, because a donated state must not contain a buffer twice.
        ema=jax.tree.map(jnp.copy, variables) if keep_ema else None,
    )
