"""Which implementation of an operation runs: by platform, export and sharding.

Each entry is (largest rate, name of the implementation); the first whose rate is not exceeded
counts. `python -m experiments.gpu_suite --part=b` times the implementations (docs/benchmarks.md).
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

_portable_only = contextvars.ContextVar("portable_only", default=False)
_plain_only = contextvars.ContextVar("plain_only", default=False)
# Of the devices that share a batch; None: one device has all of it.
_sharing_platform = contextvars.ContextVar("sharing_platform", default=None)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Traces every operation as plain convolutions and resizes while the context is open.

    For export, whose runtimes recognise these, and for the test that compares the implementations.
    """
    token = _portable_only.set(True)
    try:
        yield
    finally:
        _portable_only.reset(token)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Traces what is chosen by platform in its plain form on all, while the context is open.

    For maps whose rows several devices share: the compiler exchanges rows for convolutions, and
    stumbles over what CPUs have in their place.
    """
    token = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(token)


@contextlib.contextmanager
def split_batch(platform: str) -> Iterator[None]:
    """Traces for a batch that several devices share, while the context is open.

    What they sum, gradients above all, must stand in the program itself: neither in a loop over
    images, each of which would have to come to all of them, nor in the branch that a choice by
    platform leaves behind, where sums are not put in one order nor put together.

    Args:
      platform: of the devices: cpu, gpu (cuda, rocm), tpu.
    """
    token = _sharing_platform.set(platform)
    try:
        yield
    finally:
        _sharing_platform.reset(token)


def batch_is_split() -> bool:
    """Whether `split_batch` is open."""
    return _sharing_platform.get() is not None


def is_portable() -> bool:
    """Whether `portable` is open."""
    return _portable_only.get()


def by_platform(
    default: Callable, cpu: Callable, *operands: Any, gpu: Callable | None = None
) -> jax.Array:
    """Returns what an operation gives, computed as suits where the program will run.

    The choice is made when the program is lowered, not from the devices of this host, so a program
    compiled ahead of time for other hardware gets that hardware's implementation; in `split_batch`
    it is made at once.

    Args:
      default: takes the operands; runs on what has none of its own, and in `portable` and `plain`.
      cpu: in its place on CPUs.
      *operands: arrays.
      gpu: in its place on GPUs.
    """
    if is_portable() or _plain_only.get():
        return default(*operands)
    gpus = {"cuda": gpu, "rocm": gpu} if gpu else {}
    if batch_is_split():
        own = {"cpu": cpu, "gpu": gpu or default} | gpus
        return own.get(_sharing_platform.get(), default)(*operands)
    return jax.lax.platform_dependent(*operands, cpu=cpu, **gpus, default=default)


def traced_once(operation: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Decorates an operation whose equal calls share one trace and one lowered function.

    A network makes a hundred calls of few kinds: a training step of ResNet-101 is traced and
    lowered in 2.9 s so, and in 3.6 s if each call is traced by itself (docs/benchmarks.md).
    Portable programs hold no calls but `named` ones.

    Args:
      operation: of arrays by position and hashable settings by keyword.
    """

    @functools.partial(jax.jit, static_argnames=("contexts", "settings"))
    def traced(*operands: jax.Array, contexts: Any, settings: Any) -> jax.Array:
        del contexts  # They are what the operation looks up while it is traced.
        return operation(*operands, **dict(settings))

    @functools.wraps(operation)
    def call(*operands: jax.Array, **settings: Any) -> jax.Array:
        if is_portable():
            return operation(*operands, **settings)
        contexts = _plain_only.get(), _sharing_platform.get()
        return traced(*operands, contexts=contexts, settings=tuple(settings.items()))

    return call


def named(name: str, function: Callable, operand: jax.Array) -> jax.Array:
    """Returns `function(operand)`; a portable program shows it as a call of that name.

    For operations that runtimes have whole but that are several primitives here.
    """
    if not is_portable():
        return function(operand)

    def call(operand: jax.Array) -> jax.Array:
        return function(operand)

    call.__name__ = name
    return jax.jit(call)(operand)


Choices = tuple[tuple[float, str], ...]

# `kernel_gradient.CANDIDATES`: the gradient of a dense kernel at stride 1.
KERNEL_GRADIENTS: Choices = ((1, "xla"), (math.inf, "products"))
# `depthwise.CANDIDATES`: a depthwise convolution and its gradients.
DEPTHWISE: Choices = ((1, "xla"), (math.inf, "shifted"))


def chosen(choices: Choices, rates: tuple[int, int]) -> str:
    """Returns the implementation for the larger of the rates of rows and columns."""
    return next(name for largest, name in choices if max(rates) <= largest)
