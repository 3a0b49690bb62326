"""Slices of a pod by name, as in `v5e:16x16`, as devices for the TPU compiler."""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra
from deeplab_jax.planning.roofline import Chip, find_chip

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
