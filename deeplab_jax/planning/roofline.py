"""Minimum time of a step, from its work and the chip's published figures.

The longer of arithmetic and memory traffic, and after it, without overlap, what chips send each
other. Sums go around the rings of a torus: 2·(n − 1)/n of the bytes over all links at once
(arXiv 1909.09756, section 2), and each of them waits for its messages to pass all hops.
"""

import dataclasses
import functools
import importlib.resources
import tomllib

from deeplab_jax.errors import unknown_name


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
      chip_config: how the compiler is told to take a chip of several cores as one device.
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
    """What a chip does in a step.

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
        """Of the whole step."""
        return max(self.compute, self.memory) + self.reduction + self.halo

    @property
    def bound(self) -> str:
        """What takes longest: `compute`, `memory`, `reduction` or `halo`."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def estimate(work: Work, chip: Chip, num_chips: int) -> Estimate:
    """Returns the seconds of a step on so many chips, each with the same work."""
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
