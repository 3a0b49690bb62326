"""Selection of an operation's implementation by platform, export and sharding.

`python -m experiments.gpu_suite --part=b` times the implementations for GPUs
(docs/benchmarks.md).
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """Conditions that, beside the operands, decide which implementation of an operation is traced.

    Attributes:
      export: whether every operation is traced as plain convolutions and resizes. Export needs
        them, because runtimes recognize these, and so does the test that compares implementations.
      batch_sharded_on: platform (cpu, gpu, tpu) of the devices over which a batch is sharded; None:
        one device has the whole batch. Sums over the batch, gradients above all, must then be in
        the program itself. A loop over images would send each image to every device. A branch, as a
        choice by platform leaves it, keeps the compiler from ordering and combining the sums.
      rows_sharded: sharding of maps whose rows are sharded over devices; None: rows are not
        sharded. The compiler exchanges rows for convolutions, but fails on the implementations
        that CPUs use instead.
    """

    export: bool = False
    batch_sharded_on: str | None = None
    rows_sharded: jax.sharding.NamedSharding | None = None


ONE_DEVICE = Dispatch()
_current = contextvars.ContextVar("dispatch", default=ONE_DEVICE)


@contextlib.contextmanager
def dispatching(**fields: Any) -> Iterator[None]:
    """Traces operations with another `Dispatch` while the context is open.

    Args:
      **fields: fields of `Dispatch` to change; others keep their values.
    """
    token = _current.set(dataclasses.replace(_current.get(), **fields))
    try:
        yield
    finally:
        _current.reset(token)


def exporting() -> bool:
    """Returns whether `Dispatch.export` is set."""
    return _current.get().export


def batch_is_sharded() -> bool:
    """Returns whether a batch is sharded over several devices."""
    return _current.get().batch_sharded_on is not None


def constrain_rows(maps: Any) -> Any:
    """Returns the same maps, with the constraint that their rows are sharded over devices.

    Layers and networks meet sharding only here. Without `Dispatch.rows_sharded` this is the
    identity. The number of rows need not be a multiple of the number of devices: the compiler pads
    the last part. Maps with fewer rows than devices, and leaves that are not maps, are returned
    unchanged.

    Args:
      maps: tree of arrays; those [N, H, W, …] are sharded.
    """
    sharding = _current.get().rows_sharded
    if sharding is None:
        return maps
    parts = sharding.mesh.shape[sharding.spec[1]]

    def split(leaf: Any) -> Any:
        is_map = isinstance(leaf, jax.Array) and leaf.ndim >= 3 and leaf.shape[1] >= parts
        return jax.lax.with_sharding_constraint(leaf, sharding) if is_map else leaf

    return jax.tree.map(split, maps)


Result = TypeVar("Result")


def dispatch(
    reference: Callable[..., Result],
    cpu: Callable[..., Result],
    *operands: Any,
    gpu: Callable[..., Result] | None = None,
) -> Result:
    """Returns the result of an operation, by the implementation for the program's platform.

    The implementation is selected when the program is lowered, not from the devices of this host:
    a program compiled ahead of time for other hardware gets that hardware's implementation. Where a
    batch is sharded, it is selected at once.

    Args:
      reference: function of the operands for all other platforms, for export, and where rows are
        sharded.
      cpu: function of the operands for CPUs.
      *operands: arrays.
      gpu: function of the operands for GPUs (default: `reference`).
    """
    now = _current.get()
    if now.export or now.rows_sharded is not None:
        return reference(*operands)
    if now.batch_sharded_on is not None:
        own = {"cpu": cpu, "gpu": gpu or reference}
        return own.get(now.batch_sharded_on, reference)(*operands)
    gpus = {"cuda": gpu, "rocm": gpu} if gpu else {}
    return jax.lax.platform_dependent(*operands, cpu=cpu, **gpus, default=reference)


def named(name: str, function: Callable[[jax.Array], jax.Array], operand: jax.Array) -> jax.Array:
    """Returns `function(operand)`; an exported program holds it as a call of that name.

    Runtimes have a single operation for it, where JAX has several primitives.
    """
    if not exporting():
        return function(operand)

    def call(operand: jax.Array) -> jax.Array:
        return function(operand)

    call.__name__ = name
    return jax.jit(call)(operand)
