"""Runs of units that are alike, compiled once as the body of a loop.

Their variables keep the names and shapes that they have one by one: the loop stacks them when it is
traced and hands changed ones back under their names.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops

# Collections that a unit may change in training.
CHANGING = ("batch_stats",)
# A loop of fewer rounds saves no time that is worth stacking the variables.
SHORTEST = 3
# (name, output, inner map that decoders use)
Result = tuple[str, jax.Array, jax.Array]


def run_units(
    parent: nn.Module,
    units: Mapping[str, nn.Module],
    inputs: jax.Array,
    train: bool,
    *,
    scan: bool,
) -> Iterator[Result]:
    """Applies units one after the other, each to the output of the one before it.

    Results are those of `scan=False` in all cases. `init` and `ops.portable` never loop: variables
    are born one by one, and what export traces has no loops.

    Args:
      parent: whose children the units become; in its compact method.
      units: by name, without a parent; each has a `stride` and maps (inputs, train) to
        (outputs, inner map).
      inputs: of the first unit.
      train: handed to every unit.
      scan: run neighbours that are alike as a loop.

    Yields:
      Each unit's name, outputs and inner map.
    """
    looping = scan and not parent.is_initializing() and not ops.is_portable()
    hidden = inputs
    for names in _runs(parent, units) if looping else ([name] for name in units):
        if len(names) > 1:
            results = _scan(parent, units[names[0]], names, hidden, train)
        else:
            bound = units[names[0]].clone(parent=parent, name=names[0])
            results = [(names[0], *bound(hidden, train))]
        yield from results
        hidden = results[-1][1]


def _runs(parent: nn.Module, units: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """Yields the names of neighbours that are equal modules with variables of equal shapes."""

    def kind(name: str) -> tuple:
        own = _variables(parent, name)
        return units[name], jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), own)

    for (unit, _), group in itertools.groupby(units, kind):
        names = list(group)
        # With a stride the second of two has a smaller map than the first.
        loop = unit.stride == 1 and len(names) >= SHORTEST
        yield from [names] if loop else ([name] for name in names)


def _variables(parent: nn.Module, name: str) -> dict:
    """Returns a child's variables by collection."""
    return {
        collection: dict(children[name])
        for collection, children in parent.variables.items()
        if name in children
    }


def _scan(
    parent: nn.Module, unit: nn.Module, names: Sequence[str], inputs: jax.Array, train: bool
) -> list[Result]:
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(_variables(parent, name) for name in names)
    )
    mutable = [name for name in CHANGING if parent.is_mutable_collection(name)]

    def body(hidden: jax.Array, variables: dict) -> tuple[jax.Array, tuple]:
        (outputs, inner), changed = unit.apply(variables, hidden, train, mutable=mutable)
        return outputs, (outputs, inner, changed)

    last, (outputs, inner, changed) = jax.lax.scan(body, inputs, stacked)
    for index, name in enumerate(names):
        for collection, values in changed.items():
            own = jax.tree.map(lambda leaf, index=index: leaf[index], values)
            parent.put_variable(collection, name, own)
    outputs = [*(outputs[index] for index in range(len(names) - 1)), last]
    return [(name, outputs[index], inner[index]) for index, name in enumerate(names)]
