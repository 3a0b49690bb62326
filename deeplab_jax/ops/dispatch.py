"""Which implementation of an operation runs: by platform, export and sharding.

The choices among implementations on GPUs stand in `ON_GPUS`: each entry is (largest rate, name of
the implementation); the first whose rate is not exceeded counts. `python -m experiments.gpu_suite
--part=b` times the implementations (docs/benchmarks.md).
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """Conditions that decide, beside its operands, which implementation of an operation is traced.

    Attributes:
      export: every operation is traced as plain convolutions and resizes: for export, whose
        runtimes recognise these, and for the test that compares the implementations.
      batch_sharded_on: platform (cpu, gpu, tpu) of the devices that share a batch; None: one device
        has all of it. What they sum, gradients above all, must stand in the program itself: neither
        in a loop over images, each of which would have to come to all of them, nor in the branch
        that a choice by platform leaves behind, where sums are not put in one order nor put
        together.
      rows_sharded: of maps whose rows several devices share; None: no rows are shared. The compiler
        exchanges rows for convolutions, and stumbles over what CPUs have in their place.
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
      **fields: of `Dispatch`; others keep their values.
    """
    token = _current.set(dataclasses.replace(_current.get(), **fields))
    try:
        yield
    finally:
        _current.reset(token)


def exporting() -> bool:
    """Whether `Dispatch.export` is in force."""
    return _current.get().export


def batch_is_sharded() -> bool:
    """Whether several devices share a batch."""
    return _current.get().batch_sharded_on is not None


def constrain_rows(maps: Any) -> Any:
    """Returns the same maps, with a demand on the compiler to split rows that devices share.

    The one place where layers and networks meet sharding; without `Dispatch.rows_sharded` it is the
    identity. Rows need not divide: the compiler pads the last part. Maps with fewer rows than
    parts, and what is no map, stay as they are.

    Args:
      maps: tree of arrays; those [N, H, W, …] are split.
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
    """Returns what an operation gives, computed as suits where the program will run.

    The choice is made when the program is lowered, not from the devices of this host, so a program
    compiled ahead of time for other hardware gets that hardware's implementation; where devices
    share a batch it is made at once.

    Args:
      reference: takes the operands; runs on what has none of its own, for export, and where devices
        share rows.
      cpu: in its place on CPUs.
      *operands: arrays.
      gpu: in its place on GPUs.
    """
    now = _current.get()
    if now.export or now.rows_sharded is not None:
        return reference(*operands)
    gpus = {"cuda": gpu, "rocm": gpu} if gpu else {}
    if now.batch_sharded_on is not None:
        own = {"cpu": cpu, "gpu": gpu or reference} | gpus
        return own.get(now.batch_sharded_on, reference)(*operands)
    return jax.lax.platform_dependent(*operands, cpu=cpu, **gpus, default=reference)


def traced_once(operation: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Decorates an operation whose equal calls share one trace and one lowered function.

    A network makes a hundred calls of few kinds: a training step of ResNet-101 is traced and
    lowered in 2.9 s so, and in 3.6 s if each call is traced by itself (docs/benchmarks.md).
    Exported programs hold no calls but `named` ones.

    Args:
      operation: of arrays by position and hashable settings by keyword.
    """

    @functools.partial(jax.jit, static_argnames=("now", "settings"))
    def traced(*operands: jax.Array, now: Dispatch, settings: Any) -> jax.Array:
        del now  # The operation looks it up while it is traced.
        return operation(*operands, **dict(settings))

    @functools.wraps(operation)
    def call(*operands: jax.Array, **settings: Any) -> jax.Array:
        if exporting():
            return operation(*operands, **settings)
        return traced(*operands, now=_current.get(), settings=tuple(settings.items()))

    return call


def named(name: str, function: Callable[[jax.Array], jax.Array], operand: jax.Array) -> jax.Array:
    """Returns `function(operand)`; an exported program shows it as a call of that name.

    For operations that runtimes have whole but that are several primitives here.
    """
    if not exporting():
        return function(operand)

    def call(operand: jax.Array) -> jax.Array:
        return function(operand)

    call.__name__ = name
    return jax.jit(call)(operand)


Choices = tuple[tuple[float, str], ...]

ON_GPUS: dict[str, Choices] = {
    # `kernel_gradient.CANDIDATES`: the gradient of a dense kernel at stride 1.
    "kernel_gradient": ((1, "xla"), (math.inf, "products")),
    # `depthwise.CANDIDATES`: a depthwise convolution and its gradients.
    "depthwise": ((1, "xla"), (math.inf, "shifted")),
}


def chosen(choices: Choices, rates: tuple[int, int]) -> str:
    """Returns the implementation for the larger of the rates of rows and columns."""
    return next(name for largest, name in choices if max(rates) <= largest)
