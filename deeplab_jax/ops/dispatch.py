"""Selects the implementation of an operation by platform, export and sharding.

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
class KernelShards:
    """Sharding of kernels (fully sharded data parallelism).

    Attributes:
      maps: sharding of feature maps. Kernels are sharded over the mesh axis over which this
        sharding distributes the images of a batch.
      axis_of: function that receives the shape of a kernel and returns the index of the axis to
        shard, or None to replicate the kernel.
    """

    maps: jax.sharding.NamedSharding
    axis_of: Callable[[tuple[int, ...]], int | None]


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """Conditions that determine which implementation of an operation is traced.

    Attributes:
      export: whether to trace all operations as plain convolutions and resizes, which the runtimes
        of exported programs recognize.
      platform: platform (`cpu`, `gpu` or `tpu`) of the devices that run the operations; None: it is
        unknown during tracing. If it is unknown, operations contain a branch for each platform,
        which takes time to trace and prevents the compiler from scheduling and combining the sums
        of gradients over devices.
      batch_sharded: whether the batch is sharded over devices. Operations on a sharded batch
        contain no loop over images, because such a loop would send each image to every device.
      rows_sharded: sharding of feature maps whose rows are sharded over devices; None: rows are not
        sharded. If rows are sharded, the implementations for CPUs and GPUs are not used, and
        sharded_rows.py computes convolutions and resizing.
      kernel_shards: sharding of kernels; None: they are replicated. The gradient of a sharded
        kernel is reduce-scattered.
    """

    export: bool = False
    platform: str | None = None
    batch_sharded: bool = False
    rows_sharded: jax.sharding.NamedSharding | None = None
    kernel_shards: KernelShards | None = None


ONE_DEVICE = Dispatch()
_current = contextvars.ContextVar("dispatch", default=ONE_DEVICE)


@contextlib.contextmanager
def dispatching(**fields: Any) -> Iterator[None]:
    """Sets fields of the current `Dispatch` for all operations traced inside the `with` block.

    Args:
      **fields: new values of fields of `Dispatch`; the others keep their values.
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
    """Returns whether the batch is sharded over devices; see `Dispatch.batch_sharded`."""
    return _current.get().batch_sharded


def rows_sharded() -> jax.sharding.NamedSharding | None:
    """Returns the sharding of feature maps whose rows are sharded; see `Dispatch.rows_sharded`."""
    return _current.get().rows_sharded


def kernel_shards() -> KernelShards | None:
    """Returns the sharding of kernels; see `Dispatch.kernel_shards`."""
    return _current.get().kernel_shards


def is_sharded() -> bool:
    """Returns whether the batch or the rows of its images are sharded over devices."""
    return batch_is_sharded() or rows_sharded() is not None


def constrain_rows(maps: Any) -> Any:
    """Constrains the rows of feature maps to be sharded as `Dispatch.rows_sharded` specifies.

    Maps with fewer rows than shards, and leaves that are not maps, are returned unchanged. If
    `rows_sharded` is None, all leaves are returned unchanged. The number of rows need not be a
    multiple of the number of shards, because the compiler pads the last shard.

    Args:
      maps: tree of arrays; those with the shape [N, H, W, …] are maps.
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
    """Computes an operation with the implementation for the platform that the program runs on.

    The implementation is selected during tracing, by `Dispatch.platform`. If the platform is
    unknown, the implementation is selected when the program is lowered, so a program that is
    compiled ahead of time for other hardware gets the implementation for that hardware.

    Args:
      reference: implementation for TPUs, for export, and for sharded rows.
      cpu: implementation for CPUs.
      *operands: arrays that the implementation is called with.
      gpu: implementation for GPUs (default: `reference`).
    """
    now = _current.get()
    if now.export or now.rows_sharded is not None:
        return reference(*operands)
    if now.platform is not None:
        own = {"cpu": cpu, "gpu": gpu or reference}
        return own.get(now.platform, reference)(*operands)
    gpus = {"cuda": gpu, "rocm": gpu} if gpu else {}
    return jax.lax.platform_dependent(*operands, cpu=cpu, **gpus, default=reference)


def named(name: str, function: Callable[[jax.Array], jax.Array], operand: jax.Array) -> jax.Array:
    """Computes `function(operand)`; in an exported program, the function has the given name.

    The converters of exported programs to other formats recognize the name. They replace the call
    by operations of the other format.
    """
    if not exporting():
        return function(operand)

    def call(operand: jax.Array) -> jax.Array:
        return function(operand)

    call.__name__ = name
    return jax.jit(call)(operand)
