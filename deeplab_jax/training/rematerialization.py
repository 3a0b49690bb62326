"""Less memory for more arithmetic: inner maps that the backward pass computes anew."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn

from deeplab_jax.backbones import UNITS
from deeplab_jax.errors import unknown_name
from deeplab_jax.layers import ConvNorm

# What of a network is kept for the backward pass only where it goes in.
REMATERIALIZED: dict[str, tuple[type[nn.Module], ...]] = {
    "none": (),
    "normalizations": (ConvNorm,),
    "units": UNITS,
}


@dataclasses.dataclass(frozen=True)
class Rematerialized:
    """Stands for a network some of whose modules keep their inputs alone for the backward pass.

    It is what its network is in all else, and computes the same numbers.
    """

    model: Any
    kinds: tuple[type[nn.Module], ...]
    policy: Callable[..., bool] | None = None

    @property
    def architecture(self) -> Any:
        """Of the network."""
        return self.model.architecture

    def apply(self, *arguments: Any, **keywords: Any) -> Any:
        """Applies the network; see Flax."""
        with _rematerializing(self.kinds, self.policy):
            return self.model.apply(*arguments, **keywords)


def rematerialized(model: Any, what: str) -> Any:
    """Returns the network as `training.rematerialize` asks for it.

    Args:
      model: a network.
      what: `none`, `normalizations` or `units`.

    Raises:
      DeepLabError: it is none of these.

    Source: arXiv 1604.06174.
    """
    if what not in REMATERIALIZED:
        raise unknown_name("training.rematerialize", what, REMATERIALIZED)
    if what == "none":
        return model
    # Convolutions are worth keeping, what is cheap after them is not.
    policy = save_convolutions if what == "normalizations" else None
    return Rematerialized(model, REMATERIALIZED[what], policy)


def save_convolutions(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether a primitive's result is kept: that of convolutions and matrix products."""
    return primitive.name in ("conv_general_dilated", "dot_general")


@contextlib.contextmanager
def _rematerializing(
    kinds: tuple[type[nn.Module], ...], policy: Callable[..., bool] | None
) -> Iterator[None]:
    inside: list[nn.Module] = []

    def rematerialize(
        function: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        wanted = isinstance(module, kinds) and context.method_name == "__call__"
        if inside or not wanted or not _traced(arguments[0]):
            return function(*arguments, **keywords)
        inputs, *rest = arguments

        def call(module: nn.Module, inputs: Any) -> Any:
            inside.append(module)
            try:
                return module(inputs, *rest, **keywords)
            finally:
                inside.pop()

        return nn.remat(call, policy=policy)(module, inputs)

    with nn.intercept_methods(rematerialize):
        yield


def _traced(inputs: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(inputs))
