"""Part b: implementations of atrous kernels' gradients and depthwise convolutions, each alone."""

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

# Batch, side, channels, features, rate at 513 × 513: ResNet-101, output stride 8, then 16.
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
# Batch, side, channels, rate.
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
    """Returns the gradient of a kernel as JAX and XLA derive it."""
    convolve = functools.partial(xla_convolution, inputs, window=window)
    return jax.linear_transpose(convolve, kernel)(cotangent)[0]


def convolution_by_channel(window: Window, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns XLA's depthwise convolution."""
    return xla_convolution(inputs, kernel, window, groups=inputs.shape[-1])


# Gradients of atrous kernels, and depthwise convolutions, that GPUs choose from.
GRADIENTS = {"xla": xla_gradient, "products": products_over_maps}
CONVOLUTIONS = {
    "xla": convolution_by_channel,
    "shifted": functools.partial(shifted_products, gradient_at_once),
}


def measurements(toy: bool) -> list[Measurement]:
    """Returns every implementation at every shape, those of ResNet-101 first."""
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
    """Times outputs, the inputs' gradient and the kernel's gradient, each in a program."""
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
    """Returns normal bfloat16 numbers of each size: zeros would run faster."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return [
        jax.random.normal(key, size, jnp.bfloat16) for key, size in zip(keys, sizes, strict=True)
    ]


def timed(function: Callable[..., Any], operands: list[jax.Array], calls: int) -> dict[str, Any]:
    """Returns a call's milliseconds, seconds of compilation, and planned memory in bytes.

    `milliseconds` is of calls one after another, so that the host's time is hidden where it is
    shorter; `alone` is the median of calls that each end before the next starts.
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
