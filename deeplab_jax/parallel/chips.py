"""Specifications of chips, and the peak rate of the devices of this process."""

import dataclasses
import functools
import importlib.resources
import re
import time
import tomllib
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published specifications of a chip.

    Attributes:
      name: name given by the manufacturer.
      peak_flops: bfloat16 operations per second.
      hbm_bytes: memory capacity in bytes.
      usable_hbm_bytes: bytes of memory that the compiler makes available to programs.
      hbm_bandwidth: bytes per second between memory and chip.
      ici_bandwidth: bytes per second sent to other chips, over all links.
      dimensions: number of dimensions of the torus that connects the chips.
      largest: number of chips of the largest slice.
      source: publication of the specifications.
      chip_config: compiler option with which a chip of several cores is one device.
      device_kinds: names that JAX gives to devices of this chip.
    """

    name: str
    peak_flops: float
    hbm_bytes: int
    usable_hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    dimensions: int
    largest: int
    source: str
    chip_config: str = ""
    device_kinds: tuple[str, ...] = ()


@functools.cache
def chips() -> dict[str, Chip]:
    """Returns the supported chips by their names in topologies, such as `v5e`."""
    return {
        name: Chip(**figures | {"device_kinds": tuple(figures["device_kinds"])})
        for name, figures in _table("chips.toml").items()
    }


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(importlib.resources.files(__package__).joinpath(name).read_text("utf-8"))


def published_peak(device_kind: str) -> tuple[float, str] | None:
    """Returns the published peak rate of a device, and the name of the chip; None if unknown.

    Args:
      device_kind: name that JAX gives to the device, such as "TPU v5 lite".

    Returns:
      Dense operations per second in bfloat16 (float16 on chips without it), and the name.
    """
    for chip in chips().values():
        if device_kind in chip.device_kinds:
            return chip.peak_flops, chip.name
    for name, figures in _table("gpus.toml").items():
        # A name continues with its memory or form, as in "NVIDIA A100-SXM4-80GB".
        if any(re.match(rf"{kind}\b", device_kind) for kind in figures["device_kinds"]):
            return figures["peak_flops"], name
    return None


def matrix_rate(size: int, dtype: str = "float32", repetitions: int = 5) -> float:
    """Measures the rate of matrix multiplication on the default device.

    Args:
      size: side of the square matrices.
      dtype: data type of the matrices.
      repetitions: number of products; the fastest one counts.

    Returns:
      Floating-point operations per second.
    """
    # Random values, because matrix units may run faster on constants, which draw less power.
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    seconds = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        jax.block_until_ready(product(matrix))
        seconds.append(time.perf_counter() - started)
    # The first product includes compilation.
    return 2 * size**3 / min(seconds[1:])
