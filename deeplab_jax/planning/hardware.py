"""Chips and slices that can be planned for, and the minimum time of a step on them.

The minimum time of a step is the longer of arithmetic and memory traffic, plus communication
without overlap. Sums travel around the rings of a torus: 2·(n − 1)/n of the bytes over all links
at once (arXiv 1909.09756, section 2), and each of them has the latency of all hops.
"""

import dataclasses
import functools
import importlib.resources
import math
import os
import re
import tomllib

import jax
from jax.experimental import topologies

from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.lazy import import_extra


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of a chip.

    Attributes:
      name: name given by the manufacturer.
      peak_flops: bfloat16 operations per second.
      hbm_bytes: capacity of the memory.
      usable_hbm_bytes: part of the memory that the compiler gives to programs.
      hbm_bandwidth: bytes per second between memory and chip.
      ici_bandwidth: bytes per second sent to other chips, over all links.
      dimensions: number of dimensions of the torus that slices are part of.
      largest: number of chips of the largest slice.
      source: where the figures are published.
      chip_config: compiler option that makes a chip of several cores one device.
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


@functools.cache
def chips() -> dict[str, Chip]:
    """Returns every chip by its name in topologies."""
    text = importlib.resources.files(__package__).joinpath("chips.toml").read_text("utf-8")
    return {name: Chip(**figures) for name, figures in tomllib.loads(text).items()}


# Estimated latency between neighboring chips, in seconds; no manufacturer publishes it.
HOP_SECONDS = 1e-6
SCALES = [2**power for power in range(10)]


@dataclasses.dataclass(frozen=True)
class Work:
    """Work of one chip in a step.

    Attributes:
      flops: number of operations.
      hbm_bytes: bytes read from and written to the memory.
      reduced_bytes: bytes summed over chips; gathered bytes count half.
      reductions: number of sums and gathers.
      halo_bytes: bytes sent to the chips with the neighboring rows.
    """

    flops: float
    hbm_bytes: float
    reduced_bytes: float = 0.0
    reductions: int = 0
    halo_bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of the parts of a step.

    Attributes:
      compute: arithmetic at the peak rate.
      memory: memory traffic.
      reduction: sums over chips.
      halo: exchange of neighboring rows.
    """

    compute: float
    memory: float
    reduction: float
    halo: float

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return max(self.compute, self.memory) + self.reduction + self.halo

    @property
    def bound(self) -> str:
        """Name of the longest part: `compute`, `memory`, `reduction` or `halo`."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def estimate(work: Work, chip: Chip, num_chips: int) -> Estimate:
    """Returns the seconds of a step on `num_chips` chips, each with the same work."""
    fraction = 2 * (num_chips - 1) / num_chips
    hops = 0.0 if num_chips == 1 else chip.dimensions * num_chips ** (1 / chip.dimensions)
    sending = fraction * work.reduced_bytes / chip.ici_bandwidth
    # Neighbors are connected by one of the two links that a chip has per dimension.
    link = chip.ici_bandwidth / (2 * chip.dimensions)
    return Estimate(
        compute=work.flops / chip.peak_flops,
        memory=work.hbm_bytes / chip.hbm_bandwidth,
        reduction=sending + work.reductions * hops * HOP_SECONDS,
        halo=work.halo_bytes / link,
    )


def scaling(work: Work, chip: Chip, smallest: int = 1) -> dict[int, float]:
    """Returns the efficiency by number of chips, relative to the smallest number.

    Args:
      work: work of one chip, the same on any number of chips.
      chip: figures of the chip.
      smallest: number of chips that one image requires.
    """
    counts = [smallest * scale for scale in SCALES if smallest * scale <= chip.largest]
    alone = estimate(work, chip, smallest).step
    return {count: alone / estimate(work, chip, count).step for count in counts}


# The compiler runs without a TPU, and must not request the slice from the cloud's metadata server.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Compilation occupies no TPU, so several processes can compile at once.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slice of a pod.

    Attributes:
      name: chip and shape, such as `v5e:16x16`.
      chip: figures of its chips.
      shape: number of chips along each dimension.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        """Number of chips in the slice."""
        return math.prod(self.shape)


def parse_topology(name: str) -> Topology:
    """Returns the slice of a name such as `v5e:16x16` or `v5p:4x4x8`.

    Raises:
      DeepLabError: the chip is unknown, or has no slices of this shape.
    """
    generation, _, text = name.partition(":")
    if generation not in chips():
        raise unknown_name("chip", generation, chips())
    chip = chips()[generation]
    example = f"{generation}:{'x'.join('4' * chip.dimensions)}"
    invalid = f"invalid topology {name!r}: "
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise DeepLabError(f"{invalid}expected chip and shape, as in {example}")
    shape = tuple(map(int, text.split("x")))
    if len(shape) != chip.dimensions:
        legal = f"slices of {generation} have {chip.dimensions} dimensions, as in {example}"
        raise DeepLabError(invalid + legal)
    if math.prod(shape) > chip.largest:
        legal = f"the largest slice of {generation} has {chip.largest}"
        raise DeepLabError(f"{invalid}it has {math.prod(shape)} chips; {legal}")
    return Topology(name, chip, shape)


def topology_devices(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a slice that is not present, as a target of the TPU compiler.

    Raises:
      DeepLabError: the compiler is not installed, or does not support the slice.
    """
    import_extra("libtpu", "tpu", "a plan for TPUs")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options = {"chip_config_name": topology.chip.chip_config} if topology.chip.chip_config else {}
    try:
        described = topologies.get_topology_desc(topology.name, platform="tpu", **options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DeepLabError(f"TPU compiler has no slice {topology.name}: {reason}") from error
    devices = list(described.devices)
    if len(devices) != topology.num_chips:
        raise DeepLabError(
            f"{topology.name} has {len(devices)} devices for {topology.num_chips} chips; plans "
            "require one device per chip"
        )
    return devices
