"""Part b of the GPU suite: times kernel gradients and depthwise convolutions separately."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from deeplab_jax.benchmark.networks import planned_bytes
from deeplab_jax.ops.depthwise import gradient_at_once, shifted_products
from deeplab_jax.ops.kernel_gradient import products_over_maps
from deeplab_jax.ops.xla_convolution import Window, xla_convolution
from experiments.gpu_suite.rows import Measurement

# Shapes (batch, side, input channels, output channels, rate) of atrous convolutions of ResNet-101
# for images of 513 × 513 pixels: first at output stride 8, then at 16.
ATROUS = (
    (16, 65, 256, 256, 2),
    (16, 65, 512, 512, 4),
    (16, 65, 2048, 256, 12),
    (16, 65, 2048, 256, 24),
    (16, 65, 2048, 256, 36),
    (16, 33, 512, 512, 2),
    (16, 33, 2048, 256, 6),
    (16, 33, 2048, 256, 12),
    (16, 33, 2048, 256, 18),
)
# Shapes (batch, side, channels, rate) of depthwise convolutions, by backbone.
DEPTHWISE = {
    "xception_65": (
        (16, 65, 728, 2),
        (16, 33, 728, 1),
        (16, 33, 1536, 2),
        (16, 33, 2048, 6),
        (16, 33, 2048, 18),
        (16, 65, 2048, 12),
        (16, 257, 128, 1),
        (16, 129, 256, 1),
    ),
    "mobilenet_v2": (
        (16, 33, 960, 2),
        (16, 65, 384, 2),
        (16, 65, 960, 4),
        (16, 33, 576, 1),
        (16, 65, 192, 1),
        (16, 129, 144, 1),
    ),
}
TOY_ATROUS = ((1, 9, 4, 3, 2), (1, 7, 3, 4, 3))
TOY_DEPTHWISE = {"mobilenet_v2": ((1, 9, 4, 1), (1, 9, 4, 2))}
CALLS, TOY_CALLS = 20, 2


def xla_gradient(
    inputs: jax.Array, kernel: jax.Array, cotangent: jax.Array, window: Window
) -> jax.Array:
    """Computes the gradient with respect to a kernel as the transpose of XLA's convolution.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C, D]; only its shape is used.
      cotangent: gradient with respect to the output, [N, H', W', D].
      window: kernel size, rate, padding and stride.
    """
    convolve = functools.partial(xla_convolution, inputs, window=window)
    return jax.linear_transpose(convolve, kernel)(cotangent)[0]


def convolution_by_channel(window: Window, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a depthwise convolution as one grouped convolution of XLA.

    Args:
      window: kernel size, rate, padding and stride.
      inputs: [N, H, W, C].
      kernel: [k, k, 1, C].
    """
    return xla_convolution(inputs, kernel, window, groups=inputs.shape[-1])


# Implementations, by name, of kernel gradients and of depthwise convolutions that run on GPUs.
GRADIENTS = {"xla": xla_gradient, "products": products_over_maps}
CONVOLUTIONS = {
    "xla": convolution_by_channel,
    "shifted": functools.partial(shifted_products, gradient_at_once),
}


def measurements(toy: bool) -> list[Measurement]:
    """Returns the measurements of part b, one for each implementation and shape.

    The kernel gradients of atrous convolutions come first, then the depthwise convolutions.

    Args:
      toy: whether to use tiny shapes and few calls, to test the suite on any machine.
    """
    calls = TOY_CALLS if toy else CALLS
    found = []
    for shape in TOY_ATROUS if toy else ATROUS:
        for name in GRADIENTS:
            settings = {"work": "gradient of an atrous kernel", "shape": shape, "name": name}
            run = functools.partial(_gradient, name, shape, calls)
            found.append(Measurement(settings, run))
    for network, shapes in (TOY_DEPTHWISE if toy else DEPTHWISE).items():
        for shape in shapes:
            for name in CONVOLUTIONS:
                settings = {"work": "depthwise convolution", "network": network}
                settings |= {"shape": shape, "name": name}
                run = functools.partial(_depthwise, name, shape, calls)
                found.append(Measurement(settings, run))
    return found


def _gradient(name: str, shape: tuple[int, ...], calls: int) -> dict[str, Any]:
    batch, side, channels, features, rate = shape
    inputs, cotangent = ((batch, side, side, depth) for depth in (channels, features))
    operands = _random(inputs, (3, 3, channels, features), cotangent)
    window = Window(3, (rate, rate), ((rate, rate), (rate, rate)))
    figures = timed(functools.partial(GRADIENTS[name], window=window), operands, calls)
    operations = 2 * 9 * batch * side**2 * channels * features
    return figures | {"operations_per_second": 1e3 * operations / figures["milliseconds"]}


def _depthwise(name: str, shape: tuple[int, ...], calls: int) -> dict[str, Any]:
    """Times a depthwise convolution, the gradient of its input, and the gradient of its kernel."""
    batch, side, channels, rate = shape
    maps = (batch, side, side, channels)
    operands = _random(maps, (3, 3, 1, channels), maps)
    window = Window(3, (rate, rate), ((rate, rate), (rate, rate)))
    convolve = functools.partial(CONVOLUTIONS[name], window)

    def gradient(index: int, inputs: jax.Array, kernel: jax.Array, cotangent: jax.Array):
        return jax.vjp(convolve, inputs, kernel)[1](cotangent)[index]

    return {
        "outputs": timed(convolve, operands[:2], calls),
        "gradient_of_inputs": timed(functools.partial(gradient, 0), operands, calls),
        "gradient_of_kernel": timed(functools.partial(gradient, 1), operands, calls),
    }


def _random(*sizes: tuple[int, ...]) -> list[jax.Array]:
    """Returns normally distributed bfloat16 arrays, because GPUs compute faster with zeros."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return [
        jax.random.normal(key, size, jnp.bfloat16) for key, size in zip(keys, sizes, strict=True)
    ]


def timed(function: Callable[..., Any], operands: list[jax.Array], calls: int) -> dict[str, Any]:
    """Times a function of arrays, after compilation.

    Returns:
      A dictionary:
      - `milliseconds`: mean time of a call. All calls are dispatched before the first result is
        awaited, which hides the time that the host needs for dispatch.
      - `alone`: median time of a call in milliseconds. Each result is awaited before the next call,
        so this time includes dispatch by the host.
      - `compilation_seconds`: compile time.
      - `planned_bytes`: estimated peak memory.
      - `calls`: number of timed calls.
    """
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*operands).compile()
    compilation = time.perf_counter() - started
    jax.block_until_ready(compiled(*operands))
    alone = []
    for _ in range(calls):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*operands))
        alone.append(1e3 * (time.perf_counter() - started))
    started = time.perf_counter()
    jax.block_until_ready([compiled(*operands) for _ in range(calls)])
    together = 1e3 * (time.perf_counter() - started) / calls
    return {
        "milliseconds": together,
        "alone": statistics.median(alone),
        "compilation_seconds": compilation,
        "planned_bytes": planned_bytes(compiled),
        "calls": calls,
    }
