"""Convolution, resizing and kernel gradients for maps and kernels that are sharded over devices.

XLA also partitions these operations, but gathers maps for resizing and large atrous rates, and sums
kernel gradients twice: over the devices with rows of the same image, and then over all images. Here
each device receives only the rows that it needs. The gradient of a replicated kernel is summed
once, over all devices. The gradient of a sharded kernel is reduce-scattered: each device receives
only its shard of the sum, whereas XLA computes the whole sum on every device. test_sharded_rows.py
and test_communication.py compare the results with those on one device.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import dispatching, kernel_shards, rows_sharded
from deeplab_jax.ops.row_blocks import (
    RowBlocks,
    firsts,
    input_blocks,
    output_blocks,
    pad_rows,
    reach,
    resized_blocks,
    take_rows,
)
from deeplab_jax.ops.xla_convolution import GroupedKernel, Inputs, Outputs, Window, xla_convolution


def sharding_of_rows(inputs: jax.Array, rows: int) -> NamedSharding | None:
    """Returns the sharding of an operation's input and result; None if rows are not sharded.

    Args:
      inputs: input, a map [N, H, W, C].
      rows: number of rows of the result.

    Returns:
      `Dispatch.rows_sharded`, which shards images over one mesh axis and rows over another. None if
      this field is None, the rows' axis has only one device, the input or the result has fewer rows
      than this axis has devices, or N is not a multiple of the size of the images' axis.
    """
    sharding = rows_sharded()
    if sharding is None:
        return None
    images, parts = (sharding.mesh.shape[axis] for axis in sharding.spec)
    enough = parts > 1 and min(inputs.shape[1], rows) >= parts
    return sharding if enough and inputs.shape[0] % images == 0 else None


def convolution_on_devices(
    inputs: Inputs,
    kernel: GroupedKernel,
    window: Window,
    groups: int = 1,
    collected: jax.Array | None = None,
) -> Outputs:
    """Computes `xla_convolution`, by `convolve_rows` if the rows of the map are sharded.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C / groups, D].
      window: kernel size, atrous rates, padding and stride.
      groups: number of channel groups; C for a depthwise convolution.
      collected: `HaloMaps.collected`; None: the devices exchange the required rows in this call.

    Returns:
      [N, P, Q, D].
    """
    sharding = sharding_of_rows(inputs, window.outputs(inputs.shape[1:3])[0])
    if sharding is None:
        return xla_convolution(inputs, kernel, window, groups)
    scattered = _scattered_axis(kernel)
    return convolve_rows(sharding, window, groups, scattered, inputs, kernel, collected)


def _scattered_axis(kernel: jax.Array) -> int | None:
    """Returns the axis along which the gradient of a kernel is sharded; None: it is replicated."""
    shards = kernel_shards()
    return None if shards is None else shards.axis_of(kernel.shape)


def on_each_device(
    function: Callable[..., Any], sharding: NamedSharding, specs: Sequence[Any], results: Any
) -> Callable[..., Any]:
    """Converts a function of the shards on one device to a function of global arrays.

    Args:
      function: function of the shards on one device.
      sharding: sharding of maps; its mesh is used.
      specs: partition specification of each argument.
      results: partition specifications of the results.
    """
    return jax.shard_map(
        function,
        mesh=sharding.mesh,
        in_specs=tuple(specs),
        out_specs=results,
        check_vma=False,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HaloMaps:
    """Map whose rows are sharded, with copies of neighboring rows for several convolutions.

    Attributes:
      maps: [N, H, W, C].
      collected: [N, …, W, C], sharded like `maps`. The shard of each device contains the rows of
        `maps` on this device, and the `halo` rows before and after them (see `with_halo`).
        Gradients are computed only for `maps`.
    """

    maps: jax.Array
    collected: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the map."""
        return self.maps.shape

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the map."""
        return self.maps.dtype

    def astype(self, dtype: jnp.dtype) -> "HaloMaps":
        """Converts the map and the collected rows to another dtype."""
        return HaloMaps(self.maps.astype(dtype), self.collected.astype(dtype))


def with_halo(maps: jax.Array, halo: int) -> jax.Array | HaloMaps:
    """Copies neighboring rows to each device once, for several convolutions of a map at stride 1.

    Args:
      maps: [N, H, W, C].
      halo: number of rows that each device receives on each side of its own rows.

    Returns:
      `HaloMaps`; the map itself if its rows are not sharded or `halo` is 0.
    """
    sharding = sharding_of_rows(maps, maps.shape[1])
    if sharding is None or halo == 0:
        return maps
    axis, parts = _rows_axis(sharding)
    own = -(-maps.shape[1] // parts)
    starts = tuple(first - halo for first in firsts(parts, own))
    blocks = RowBlocks(axis, own, maps.shape[1], starts, own + 2 * halo)
    compute = on_each_device(blocks.collect, sharding, (sharding.spec,), sharding.spec)
    collected = compute(pad_rows(jax.lax.stop_gradient(maps), 0, blocks.padding))
    return HaloMaps(maps, collected)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def convolve_rows(
    sharding: NamedSharding,
    window: Window,
    groups: int,
    scattered: int | None,
    inputs: Inputs,
    kernel: GroupedKernel,
    collected: jax.Array | None = None,
) -> Outputs:
    """Computes `xla_convolution` of a map whose rows are sharded.

    Args:
      sharding: sharding of the map and of the result, from `sharding_of_rows`.
      window: kernel size, atrous rates, padding and stride.
      groups: number of channel groups.
      scattered: axis along which the gradient of the kernel is sharded; None: it is replicated.
      inputs: [N, H, W, C].
      kernel: [k, k, C / groups, D], replicated.
      collected: `HaloMaps.collected`; None: the devices exchange the required rows in this call.

    Returns:
      [N, P, Q, D].
    """
    count = window.outputs(inputs.shape[1:3])[0]
    blocks = input_blocks(*_rows_axis(sharding), inputs.shape[1], count, window)

    def convolve(rows: jax.Array, kernel: jax.Array) -> jax.Array:
        needed = blocks.collect(rows) if collected is None else blocks.take(rows)
        return xla_convolution(needed, kernel, _without_rows(window), groups)

    specs = (sharding.spec, PartitionSpec())
    whole = pad_rows(inputs, 0, blocks.padding) if collected is None else collected
    outputs = on_each_device(convolve, sharding, specs, sharding.spec)(whole, kernel)
    return outputs[:, :count]


def _convolve_forward(
    sharding: NamedSharding,
    window: Window,
    groups: int,
    scattered: int | None,
    inputs: Inputs,
    kernel: GroupedKernel,
    collected: jax.Array | None = None,
) -> tuple[Outputs, tuple[Inputs, GroupedKernel, Any]]:
    outputs = convolve_rows(sharding, window, groups, scattered, inputs, kernel, collected)
    return outputs, (inputs, kernel, collected)


def _convolve_backward(
    sharding: NamedSharding,
    window: Window,
    groups: int,
    scattered: int | None,
    operands: tuple[Inputs, GroupedKernel, Any],
    cotangent: Outputs,
) -> tuple[Inputs, GroupedKernel, jax.Array | None]:
    """Computes the gradients of the inputs and the kernel.

    Each device receives the cotangents of all outputs to which its input rows contribute. Only the
    device that stores an input row multiplies it by cotangents, so the gradient of the kernel is
    the sum over devices.
    """
    inputs, kernel, collected = operands
    axis, parts = _rows_axis(sharding)
    rows, stride = inputs.shape[1], window.stride
    blocks = output_blocks(axis, parts, rows, cotangent.shape[1], window)
    own = -(-rows // parts)
    # Rows of the inputs that these outputs depend on, relative to the rows of the device.
    offsets = [
        first * stride - window.padding[0][0] - start
        for first, start in zip(blocks.starts, firsts(parts, own), strict=True)
    ]
    needed = (blocks.length - 1) * stride + reach(window)

    def gradients(own_rows: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        def outputs(own_rows: jax.Array, kernel: jax.Array) -> jax.Array:
            maps = take_rows(own_rows, offsets, needed, axis)
            return xla_convolution(maps, kernel, _without_rows(window), groups)

        pull = jax.vjp(outputs, own_rows, kernel)[1]
        of_inputs, of_kernel = pull(blocks.collect(cotangent))
        return of_inputs, _sum_over_devices(of_kernel, sharding, scattered)

    spec = sharding.spec
    results = (spec, _kernel_spec(sharding, scattered))
    compute = on_each_device(gradients, sharding, (spec, PartitionSpec(), spec), results)
    of_inputs, of_kernel = compute(
        pad_rows(inputs, 0, own * parts - rows),
        kernel,
        pad_rows(cotangent, 0, blocks.padding),
    )
    unused = None if collected is None else jnp.zeros_like(collected)
    return of_inputs[:, :rows], of_kernel, unused


convolve_rows.defvjp(_convolve_forward, _convolve_backward)


def _sum_over_devices(
    gradient: jax.Array, sharding: NamedSharding, scattered: int | None
) -> jax.Array:
    """Sums the gradient of a kernel over all devices; called on every device.

    Args:
      gradient: gradient from the images and rows of this device.
      sharding: sharding of maps.
      scattered: axis along which each device keeps only its shard; None: it keeps the whole sum.
    """
    data, *others = sharding.spec
    if scattered is None:
        return lax.psum(gradient, tuple(sharding.spec))
    own = lax.psum_scatter(gradient, data, scatter_dimension=scattered, tiled=True)
    return lax.psum(own, tuple(others)) if others else own


def _kernel_spec(sharding: NamedSharding, scattered: int | None) -> PartitionSpec:
    if scattered is None:
        return PartitionSpec()
    return PartitionSpec(*[None] * scattered, sharding.spec[0])


# Computes outputs from (inputs, kernel).
Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def with_scattered_gradient(
    convolve: Convolution, inputs: Inputs, kernel: GroupedKernel, window: Window
) -> Outputs:
    """Computes `convolve(inputs, kernel)`, with a reduce-scattered gradient of a sharded kernel.

    Args:
      convolve: function of (inputs, kernel) that treats each image separately.
      inputs: [N, H, W, C], with images sharded over devices.
      kernel: [k, k, C / groups, D], all-gathered if `Dispatch.kernel_shards` shards it.
      window: kernel size, atrous rates, padding and stride.
    """
    shards, scattered = kernel_shards(), _scattered_axis(kernel)
    if shards is None or scattered is None:
        return convolve(inputs, kernel)
    images = NamedSharding(shards.maps.mesh, PartitionSpec(*shards.maps.spec[:1]))
    by_rows = sharding_of_rows(inputs, window.outputs(inputs.shape[1:3])[0])
    # `convolve_rows` scatters the gradient itself.
    if by_rows is not None or inputs.shape[0] % images.mesh.shape[images.spec[0]]:
        return convolve(inputs, kernel)
    return _scattering(images, scattered, convolve, inputs, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scattering(
    sharding: NamedSharding,
    scattered: int,
    convolve: Convolution,
    inputs: Inputs,
    kernel: GroupedKernel,
) -> Outputs:
    return convolve(inputs, kernel)


def _scattering_forward(
    sharding: NamedSharding,
    scattered: int,
    convolve: Convolution,
    inputs: Inputs,
    kernel: GroupedKernel,
) -> tuple[Outputs, tuple[Inputs, GroupedKernel]]:
    return convolve(inputs, kernel), (inputs, kernel)


def _scattering_backward(
    sharding: NamedSharding,
    scattered: int,
    convolve: Convolution,
    operands: tuple[Inputs, GroupedKernel],
    cotangent: Outputs,
) -> tuple[Inputs, GroupedKernel]:
    def gradients(inputs: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        of_inputs, of_kernel = jax.vjp(convolve, inputs, kernel)[1](cotangent)
        return of_inputs, _sum_over_devices(of_kernel, sharding, scattered)

    spec = sharding.spec
    results = (spec, _kernel_spec(sharding, scattered))
    # As for a replicated kernel, the implementation depends on the platform of the devices.
    with dispatching(platform=sharding.mesh.devices.flat[0].platform, batch_sharded=True):
        return on_each_device(gradients, sharding, (spec, PartitionSpec(), spec), results)(
            *operands, cotangent
        )


_scattering.defvjp(_scattering_forward, _scattering_backward)


def _rows_axis(sharding: NamedSharding) -> tuple[str, int]:
    """Returns the name and the size of the mesh axis over which rows are sharded."""
    axis = sharding.spec[1]
    return axis, sharding.mesh.shape[axis]


def _without_rows(window: Window) -> Window:
    """Returns the window without its padding along H."""
    return window._replace(padding=((0, 0), window.padding[1]))


# Returns weights [target, source] for (indices of target rows, indices of source rows).
Weights = Callable[[jax.Array, jax.Array], jax.Array]


def interpolate_rows(
    sharding: NamedSharding,
    inputs: Float[Array, "N h W C"],
    sources: Sequence[tuple[int, int]],
    weights: Weights,
) -> Float[Array, "N H W C"]:
    """Changes the height of a map that is sharded along H, by a product with `weights`.

    Args:
      sharding: sharding of the map and of the result, from `sharding_of_rows`.
      inputs: [N, h, W, C].
      sources: for each row of the result, the first and the last row of the map that it uses.
      weights: function of (indices of result rows, indices of map rows) that returns the weights,
        [result rows, map rows].

    Returns:
      [N, H, W, C], where H is the number of `sources`.
    """
    axis, parts = _rows_axis(sharding)
    blocks = resized_blocks(axis, parts, inputs.shape[1], sources)
    results = -(-len(sources) // parts)

    def interpolate(own_rows: jax.Array) -> jax.Array:
        device = lax.axis_index(axis)
        targets = device * results + jnp.arange(results)
        first = jnp.asarray(blocks.starts)[device]
        matrix = weights(targets, first + jnp.arange(blocks.length))
        maps = blocks.collect(own_rows)
        return jnp.einsum("Hh,nhWc->nHWc", matrix, maps, precision=lax.Precision.HIGHEST)

    whole = pad_rows(inputs, 0, blocks.padding)
    compute = on_each_device(interpolate, sharding, (sharding.spec,), sharding.spec)
    return compute(whole)[:, : len(sources)]
