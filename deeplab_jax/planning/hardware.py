"""Slices of TPU pods, and the minimum time of a training step on them.

The minimum time of a step is the longer of arithmetic and memory traffic, plus communication
without overlap. All-reduces run around the rings of a torus: each moves 2·(n − 1)/n of the bytes
over all links at once (arXiv 1909.09756, section 2) and has the latency of all hops.
"""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.lazy import import_extra
from deeplab_jax.parallel.chips import Chip, chips

# Estimated latency between neighboring chips, in seconds; it is not published.
HOP_SECONDS = 1e-6
SCALES = [2**power for power in range(10)]


@dataclasses.dataclass(frozen=True)
class Work:
    """Work of one chip per training step.

    Attributes:
      flops: number of floating-point operations.
      hbm_bytes: bytes read from and written to memory.
      reduced_bytes: bytes in all-reduces; other collectives count half.
      reductions: number of these collectives.
      halo_bytes: bytes sent to the chips with neighboring rows of an image.
    """

    flops: float
    hbm_bytes: float
    reduced_bytes: float = 0.0
    reductions: int = 0
    halo_bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Minimum time of each part of a step, in seconds.

    Attributes:
      compute: arithmetic at the peak rate.
      memory: memory traffic at full bandwidth.
      reduction: all-reduces and other collectives.
      halo: exchange of neighboring rows of an image.
    """

    compute: float
    memory: float
    reduction: float
    halo: float

    @property
    def step(self) -> float:
        """Minimum time of the whole step, in seconds."""
        return max(self.compute, self.memory) + self.reduction + self.halo

    @property
    def bound(self) -> str:
        """Name of the longest part: `compute`, `memory`, `reduction` or `halo`."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def estimate(work: Work, chip: Chip, num_chips: int) -> Estimate:
    """Returns the minimum time of a step on `num_chips` chips that all do the same work."""
    fraction = 2 * (num_chips - 1) / num_chips
    hops = 0.0 if num_chips == 1 else chip.dimensions * num_chips ** (1 / chip.dimensions)
    sending = fraction * work.reduced_bytes / chip.ici_bandwidth
    # A chip has two links per dimension, one of which leads to the neighbor.
    link = chip.ici_bandwidth / (2 * chip.dimensions)
    return Estimate(
        compute=work.flops / chip.peak_flops,
        memory=work.hbm_bytes / chip.hbm_bandwidth,
        reduction=sending + work.reductions * hops * HOP_SECONDS,
        halo=work.halo_bytes / link,
    )


def scaling(work: Work, chip: Chip, smallest: int = 1) -> dict[int, float]:
    """Returns the weak-scaling efficiency by number of chips, relative to the smallest number.

    Args:
      work: work of one chip, the same for any number of chips.
      chip: specifications of the chip.
      smallest: smallest number of chips, which is the number that shares one image.
    """
    counts = [smallest * scale for scale in SCALES if smallest * scale <= chip.largest]
    alone = estimate(work, chip, smallest).step
    return {count: alone / estimate(work, chip, count).step for count in counts}


# Environment of the compiler, which runs without a TPU and must not query the metadata server of
# the cloud.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Compilation uses no TPU, so several processes can compile at the same time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slice of a TPU pod.

    Attributes:
      name: chip and shape, such as `v5e:16x16`.
      chip: specifications of the chips.
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
    """Parses the name of a slice, such as `v5e:16x16` or `v5p:4x4x8`.

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
        legal = f"a {generation} slice has {chip.dimensions} dimensions, as in {example}"
        raise DeepLabError(invalid + legal)
    if math.prod(shape) > chip.largest:
        legal = f"the largest {generation} slice has {chip.largest}"
        raise DeepLabError(f"{invalid}it has {math.prod(shape)} chips; {legal}")
    return Topology(name, chip, shape)


def topology_devices(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a slice, for ahead-of-time compilation without the hardware.

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
        message = f"the TPU compiler does not support the slice {topology.name}: {reason}"
        raise DeepLabError(message) from error
    devices = list(described.devices)
    if len(devices) != topology.num_chips:
        raise DeepLabError(
            f"{topology.name} has {len(devices)} devices for {topology.num_chips} chips; plans "
            "require one device per chip"
        )
    return devices
