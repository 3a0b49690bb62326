"""What this machine can do at best, measured in the same run as everything else."""

import time
from collections.abc import Callable

import jax

# Of square matrices; large enough for caches to be used well on every platform.
MATRIX = {"cpu": 2048}
LARGE_MATRIX = 8192
# Numbers that are read and written once: 256 MiB of float32 each way.
STREAM = 2**26


def measure_peaks(dtype: str = "float32", repetitions: int = 5) -> dict[str, float]:
    """Returns the rate of matrix products and of reading and writing memory.

    Args:
      dtype: of both.
      repetitions: the best counts.

    Returns:
      `matrix_flops_per_second` and `memory_bytes_per_second`.
    """
    size = MATRIX.get(jax.default_backend(), LARGE_MATRIX)
    # Random: matrix units may run faster on equal numbers, as they draw less power.
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    stream = jax.random.normal(jax.random.key(1), (STREAM,), dtype)
    product = _best(jax.jit(lambda a: a @ a), matrix, repetitions)
    copy = _best(jax.jit(lambda a: a + 1), stream, repetitions)
    return {
        "matrix_flops_per_second": 2 * size**3 / product,
        "memory_bytes_per_second": 2 * stream.nbytes / copy,
    }


def _best(function: Callable, argument: jax.Array, repetitions: int) -> float:
    seconds = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - started)
    return min(seconds)
