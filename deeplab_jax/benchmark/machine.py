"""Description of this machine, and measurements of its peak throughput."""

import datetime
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Callable

import jax

from deeplab_jax.parallel.chips import cores, matrix_rate

PACKAGES = ("deeplab_jax", "jax", "numpy", "opencv-python-headless", "grain")
# Side of the square matrices by platform (LARGE_MATRIX elsewhere), large enough for peak
# throughput.
MATRIX = {"cpu": 2048}
LARGE_MATRIX = 8192
# Number of array elements that the memory test reads and writes: 256 MiB each way in float32.
STREAM = 2**26


def describe_machine() -> dict[str, object]:
    """Returns date, processor, number of cores, JAX devices and package versions, for JSON."""
    devices = jax.devices()
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": cores(),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    """Returns the version of a package, or None if the package is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def measure_peaks(dtype: str = "float32", repetitions: int = 5) -> dict[str, float]:
    """Measures the peak throughput of matrix multiplication and of memory.

    Args:
      dtype: data type of the matrices, and of the array that is read and written to measure the
        throughput of memory.
      repetitions: number of runs; the fastest run is used.

    Returns:
      `matrix_flops_per_second` and `memory_bytes_per_second`.
    """
    size = MATRIX.get(jax.default_backend(), LARGE_MATRIX)
    stream = jax.random.normal(jax.random.key(1), (STREAM,), dtype)
    copy = jax.jit(lambda a: a + 1)
    copying = min(run_seconds(lambda: copy(stream), repetitions))
    return {
        "matrix_flops_per_second": matrix_rate(size, dtype, repetitions),
        "memory_bytes_per_second": 2 * stream.nbytes / copying,
    }


def run_seconds(work: Callable[[], object], repetitions: int) -> list[float]:
    """Calls a function repeatedly and returns the wall time of each call, in seconds.

    One call for warm-up is not timed. The time includes waiting for the JAX arrays that the
    function returns.

    Args:
      work: function to time.
      repetitions: number of timed calls.
    """
    seconds = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
