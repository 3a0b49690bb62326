"""Specifications and compute rates of chips, number of processor cores, and compiler options."""

import dataclasses
import functools
import importlib.resources
import os
import re
import time
import tomllib
from collections.abc import MutableMapping
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
      ici_bandwidth: bytes per second sent to other chips of the slice or host, over all links.
      dimensions: number of dimensions of the torus that connects the chips; 0: a switch connects
        the GPUs of a host.
      largest: number of chips in the largest slice; for a GPU, the number of GPUs per host.
      source: addresses of the pages that publish the specifications.
      network_bandwidth: bytes per second that a chip sends to other slices or hosts; 0: not
        published.
      chip_config: value of the compiler option `chip_config_name` that makes a chip with several
        cores appear as one device; empty if the option is not needed.
      device_kinds: values of `jax.Device.device_kind` for this chip; for a GPU, the beginnings of
        these values.
      target: description of a GPU for the compiler, as fields of XLA's GpuTargetConfigProto; empty
        for a TPU.
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
    network_bandwidth: float = 0.0
    chip_config: str = ""
    device_kinds: tuple[str, ...] = ()
    target: str = ""

    @property
    def is_gpu(self) -> bool:
        """True for a GPU, False for a TPU."""
        return bool(self.target)


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
    """Returns the published peak rate of a device and the name of its chip; None if unknown.

    Args:
      device_kind: `jax.Device.device_kind`, such as "TPU v5 lite".

    Returns:
      Dense operations per second in bfloat16 (float16 on chips without bfloat16), and the name of
      the chip.
    """
    # "NVIDIA H100" is also the beginning of "NVIDIA H100 PCIe", so the longer names come first.
    others = _table("gpus.toml").items()
    rates = [
        *((name, figures["device_kinds"], figures["peak_flops"]) for name, figures in others),
        *((chip.name, chip.device_kinds, chip.peak_flops) for chip in chips().values()),
    ]
    for name, kinds, peak in rates:
        # The device kind of a GPU also contains its form and memory: "NVIDIA A100-SXM4-80GB".
        gpu = any(kind.startswith(("NVIDIA", "Tesla")) for kind in kinds)
        if device_kind in kinds or (gpu and any(re.match(rf"{k}\b", device_kind) for k in kinds)):
            return peak, name
    return None


# Environment variable from which the compiler reads its options, by platform.
XLA_PLATFORMS = {
    "tpu": "LIBTPU_INIT_ARGS",
    "tpu_slices": "LIBTPU_INIT_ARGS",
    "gpu": "XLA_FLAGS",
    "gpu_nodes": "XLA_FLAGS",
}


def xla_options(platform: str) -> dict[str, dict[str, Any]]:
    """Returns the recommended compiler options of a platform.

    Args:
      platform: `tpu`, `tpu_slices` (several slices), `gpu` or `gpu_nodes` (several hosts).

    Returns:
      A dictionary that maps the name of each option to a dictionary with these items:

      * `value`: recommended value, as text
      * `platforms`: platforms for which the value is recommended
      * `purpose`: effect of the option
      * `source`: address of the page that recommends the value
    """
    options = _table("xla_options.toml")
    return {name: option for name, option in options.items() if platform in option["platforms"]}


def set_xla_options(platform: str, environment: MutableMapping[str, str]) -> str:
    """Adds recommended options to the environment variable that the compiler of a platform reads.

    Must be called before JAX is first used. Options that the variable already contains have
    priority.

    Args:
      platform: `tpu`, `tpu_slices` (several slices), `gpu` or `gpu_nodes` (several hosts).
      environment: environment variables, of which XLA_FLAGS is changed for GPUs, and
        LIBTPU_INIT_ARGS for TPUs.

    Returns:
      Name and new value of the changed environment variable, as NAME=VALUE.
    """
    variable = XLA_PLATFORMS[platform]
    words = [f"--{name}={option['value']}" for name, option in xla_options(platform).items()]
    # If an option is given twice, the compiler uses the last value.
    environment[variable] = " ".join([*words, environment.get(variable, "")]).strip()
    return f"{variable}={environment[variable]}"


def cores() -> int:
    """Returns the number of processor cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    # macOS and Windows cannot report the cores of a process, but those of the machine.
    return os.cpu_count() or 1


def matrix_rate(size: int, dtype: str = "float32", repetitions: int = 5) -> float:
    """Measures the rate of matrix multiplication on the default device.

    Args:
      size: side of the square matrices.
      dtype: data type of the matrices.
      repetitions: number of timed products, of which the fastest determines the rate.

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
    # The time of the first product includes compilation.
    return 2 * size**3 / min(seconds[1:])
