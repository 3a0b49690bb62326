"""Chips and slices that can be planned for, and the minimum time of a step on them.

The minimum time of a step is the longer of arithmetic and memory traffic, and after it, without
overlap, what chips send each other. Sums go around the rings of a torus: 2·(n − 1)/n of the bytes
over all links at once (arXiv 1909.09756, section 2), and each of them waits for its messages to
pass all hops.
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
    """One chip.

    Attributes:
      name: as its maker calls it.
      peak_flops: bfloat16 operations a second.
      hbm_bytes: capacity of its memory.
      usable_hbm_bytes: of it, what the compiler gives to programs.
      hbm_bandwidth: bytes a second between memory and chip.
      ici_bandwidth: bytes a second that it sends to other chips, over all its links.
      dimensions: of the torus that slices are part of.
      largest: chips of the largest slice.
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
    """Returns every chip by the name that topologies begin with."""
    text = importlib.resources.files(__package__).joinpath("chips.toml").read_text("utf-8")
    return {name: Chip(**figures) for name, figures in tomllib.loads(text).items()}


def find_chip(name: str) -> Chip:
    """Returns the chip of that name.

    Raises:
      DeepLabError: there is none; names the nearest.
    """
    if name not in chips():
        raise unknown_name("chip", name, chips())
    return chips()[name]


# Seconds that a message takes from a chip to its neighbour; an estimate, published by no maker.
HOP_SECONDS = 1e-6
SCALES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Work:
    """Work of a chip in a step.

    Attributes:
      flops: operations.
      hbm_bytes: read from and written to its memory.
      reduced_bytes: that it gives to sums over chips; gathering costs half of summing.
      reductions: how many sums.
      halo_bytes: that it sends to the chips with the neighbouring rows.
    """

    flops: float
    hbm_bytes: float
    reduced_bytes: float = 0.0
    reductions: int = 0
    halo_bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step, none of them overlapping.

    Attributes:
      compute: arithmetic at the peak rate.
      memory: traffic of the chip's memory.
      reduction: sums over chips.
      halo: rows of neighbours.
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
    share = 2 * (num_chips - 1) / num_chips
    hops = 0.0 if num_chips == 1 else chip.dimensions * num_chips ** (1 / chip.dimensions)
    # Neighbours have one link of the chip's two a dimension.
    link = chip.ici_bandwidth / (2 * chip.dimensions)
    return Estimate(
        compute=work.flops / chip.peak_flops,
        memory=work.hbm_bytes / chip.hbm_bandwidth,
        reduction=share * work.reduced_bytes / chip.ici_bandwidth
        + work.reductions * hops * HOP_SECONDS,
        halo=work.halo_bytes / link,
    )


def scaling(work: Work, chip: Chip, smallest: int = 1) -> dict[int, float]:
    """Returns the efficiency by number of chips: the smallest number's step over theirs.

    Args:
      work: of a chip, the same on any number of them.
      chip: its figures.
      smallest: chips that one image needs.
    """
    counts = [smallest * scale for scale in SCALES if smallest * scale <= chip.largest]
    alone = estimate(work, chip, smallest).step
    return {count: alone / estimate(work, chip, count).step for count in counts}


# The compiler runs on a machine without a TPU: it must not ask the cloud which slice this is.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Compiling needs no TPU to itself, so several processes may compile at once.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice.

    Attributes:
      name: as given.
      chip: what it is made of.
      shape: chips along each dimension.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        """How many chips the slice has."""
        return math.prod(self.shape)


def parse_topology(name: str) -> Topology:
    """Returns the slice of a name such as `v5e:16x16` or `v5p:4x4x8`.

    Raises:
      DeepLabError: the chip is unknown, or the shape is none that it comes in.
    """
    generation, _, text = name.partition(":")
    chip = find_chip(generation)
    example = "x".join("4" * chip.dimensions)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise DeepLabError(
            f"topology {name!r} is not legal; give chip and shape, as in {generation}:{example}"
        )
    shape = tuple(map(int, text.split("x")))
    if len(shape) != chip.dimensions:
        raise DeepLabError(
            f"topology {name!r}: slices of {generation} have {chip.dimensions} dimensions, as in "
            f"{generation}:{example}"
        )
    if math.prod(shape) > chip.largest:
        raise DeepLabError(
            f"topology {name!r} has {math.prod(shape)} chips; the largest slice of {generation} "
            f"has {chip.largest}"
        )
    return Topology(name, chip, shape)


def topology_devices(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a slice that is not here, for the TPU compiler to compile for.

    Raises:
      DeepLabError: the compiler is not installed, or knows no such slice.
    """
    import_extra("libtpu", "tpu", "a plan for TPUs")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options = {"chip_config_name": topology.chip.chip_config} if topology.chip.chip_config else {}
    try:
        described = topologies.get_topology_desc(topology.name, platform="tpu", **options)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise DeepLabError(
            f"the TPU compiler knows no slice {topology.name}: {first_line}"
        ) from error
    devices = list(described.devices)
    if len(devices) != topology.num_chips:
        raise DeepLabError(
            f"{topology.name} has {len(devices)} devices for {topology.num_chips} chips; only "
            "chips that are one device can be planned for"
        )
    return devices
