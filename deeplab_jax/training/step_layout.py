"""How a step's arrays lie on the devices of a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from deeplab_jax.parallel import batch_sharding, replicated, split_rows


@dataclasses.dataclass(frozen=True)
class StepLayout:
    """Where a step finds and leaves its arrays.

    Attributes:
      mesh: of the devices; None: of one device, which the arguments lie on.
      state_sharding: of every array of the state; None: whole everywhere.
    """

    mesh: Mesh | None
    state_sharding: Any = None

    def batch(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns a batch whose rows are split."""
        return batch if self.mesh is None else split_rows(batch, self.mesh)

    def variables(self, variables: Any) -> Any:
        """Returns variables whole on every device, where they are kept in parts.

        Without the demand the compiler might move maps instead, which are larger.
        """
        if self.state_sharding is None:
            return variables
        return jax.lax.with_sharding_constraint(variables, replicated(self.mesh))

    def gradients(self, gradients: Any) -> Any:
        """Returns gradients of which each device gets the sum of its own part alone."""
        if self.state_sharding is None:
            return gradients
        own = self.state_sharding.variables["params"]
        return jax.lax.with_sharding_constraint(gradients, own)

    def jit(self, step: Callable) -> Callable:
        """Returns (state, batch) → (state, metrics) compiled; the state given is used up."""
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
