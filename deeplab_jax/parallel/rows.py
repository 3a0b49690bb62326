"""A network whose batches, and perhaps the rows of whose maps, several devices share."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax import ops
from deeplab_jax.parallel.mesh import row_sharding, space_size


def split_rows(maps: Any, mesh: Mesh) -> Any:
    """Returns the same maps, with a demand on the compiler to split their rows over `space`.

    Rows need not divide: the compiler pads the last part. Maps with fewer rows than parts, and what
    is no map, stay as they are. To be called inside a compiled function.

    Args:
      maps: tree of arrays; those [N, H, W, …] are split.
      mesh: of the devices.
    """
    parts = space_size(mesh)
    if parts == 1:
        return maps

    def split(leaf: Any) -> Any:
        is_map = isinstance(leaf, jax.Array) and leaf.ndim >= 3 and leaf.shape[1] >= parts
        return jax.lax.with_sharding_constraint(leaf, row_sharding(mesh)) if is_map else leaf

    return jax.tree.map(split, maps)


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """Stands for a network whose batches are split over `data`, and maps by rows over `space`.

    It is what its network is in all else; parameters do not know of it.
    """

    model: nn.Module
    mesh: Mesh

    @property
    def architecture(self) -> Any:
        """Of the network."""
        return self.model.architecture

    def init(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns fresh variables; see Flax."""
        return self.model.init(*arguments, **keywords)

    def clone(self, **changes: Any) -> "SplitModel":
        """Returns the same with changes to the network; see Flax."""
        return dataclasses.replace(self, model=self.model.clone(**changes))

    def apply(self, variables: Any, image: jax.Array, *arguments: Any, **keywords: Any) -> Any:
        """Applies the network to images [N, H, W, C]; see Flax."""
        if space_size(self.mesh) == 1:
            with ops.split_batch(self.mesh.devices.flat[0].platform):
                return self.model.apply(variables, image, *arguments, **keywords)
        with ops.plain(), _splitting(self.mesh):
            outputs = self.model.apply(
                variables, split_rows(image, self.mesh), *arguments, **keywords
            )
        # Changed variables, if any, stand beside the outputs and are no maps.
        if keywords.get("mutable", False) is not False:
            return split_rows(outputs[0], self.mesh), outputs[1]
        return split_rows(outputs, self.mesh)


def split_model(model: nn.Module, mesh: Mesh | None) -> nn.Module | SplitModel:
    """Returns the network as several devices compute it, on one the network itself."""
    return model if mesh is None or mesh.size == 1 else SplitModel(model, mesh)


@contextlib.contextmanager
def _splitting(mesh: Mesh) -> Iterator[None]:
    """Splits what every module below gives out."""

    def split(
        function: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext
    ) -> Any:
        outputs = function(*arguments, **keywords)
        return split_rows(outputs, mesh) if context.method_name == "__call__" else outputs

    with nn.intercept_methods(split):
        yield
