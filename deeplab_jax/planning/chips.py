"""Published figures of the chips that can be planned for; they are in `chips.toml`."""

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
