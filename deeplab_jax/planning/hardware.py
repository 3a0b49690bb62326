"""Specifications of TPU and GPU chips, and the minimum time of a training step on them.

The minimum time of a step is the time of arithmetic or of memory traffic, whichever is longer, plus
the time of communication, which is assumed not to overlap with computation.

An all-reduce within a slice of n chips runs around the rings of its torus. Each chip sends
2·(n − 1)/n of the bytes, over all its links at once (arXiv 1909.09756, section 2). The latency of
all hops is added. An all-reduce over several slices, or over several hosts with GPUs, also uses the
slower network between slices or hosts. Each chip of a slice or host holds an equal part of the
sums, and adds it to the same part in the other slices or hosts.
"""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.lazy import import_extra
from deeplab_jax.parallel.chips import Chip, chips

# Latencies in seconds of a hop between neighboring chips, and of an all-reduce between slices or
# hosts. They are estimates, because no values are published.
HOP_SECONDS, NETWORK_SECONDS = 1e-6, 20e-6
# Numbers of chips in the table of efficiencies, as multiples of the smallest number.
SCALES = [2**power for power in range(10)]
# Largest number of GPUs in the table of efficiencies.
LARGEST_CLUSTER = 256


@dataclasses.dataclass(frozen=True)
class Work:
    """Work of one chip per training step.

    Attributes:
      flops: number of floating-point operations.
      hbm_bytes: bytes read from and written to memory.
      reduced_bytes: bytes in all-reduces, plus half of the bytes in other collectives, except halo
        exchanges. An all-reduce sends each byte twice, and the other collectives send it once.
      reductions: number of collectives whose bytes are in `reduced_bytes`.
      halo_bytes: bytes of halo exchanges: rows sent to the chips with neighboring image rows.
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
      reduction: all-reduces and other collectives within a slice or a host.
      halo: exchange of neighboring rows of an image.
      network: all-reduces between slices or hosts.
    """

    compute: float
    memory: float
    reduction: float
    halo: float
    network: float = 0.0

    @property
    def step(self) -> float:
        """Minimum time of the whole step, in seconds."""
        return max(self.compute, self.memory) + self.reduction + self.halo + self.network

    @property
    def bound(self) -> str:
        """Name of the part that takes most of the estimated step time.

        It is `compute`, `memory`, `reduction`, `halo` or `network`.
        """
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def estimate(work: Work, chip: Chip, num_chips: int, num_slices: int = 1) -> Estimate:
    """Returns the minimum time of a step on chips that all do the same work.

    Args:
      work: work of one chip.
      chip: specifications of the chips.
      num_chips: number of chips in all slices or hosts.
      num_slices: number of slices of TPUs, or of hosts with GPUs.
    """
    joined = num_chips // num_slices
    # On a torus, the data pass one ring per dimension. On a switch, they pass a ring of all chips.
    ring = chip.dimensions * joined ** (1 / chip.dimensions) if chip.dimensions else joined
    hops = 0.0 if joined == 1 else ring
    sending = 2 * (joined - 1) / joined * work.reduced_bytes / chip.ici_bandwidth
    # A chip has two links per dimension. A halo uses only the link to the neighbor.
    link = chip.ici_bandwidth / (2 * chip.dimensions or 1)
    network = 0.0
    if num_slices > 1:
        part = 2 * (num_slices - 1) / num_slices * work.reduced_bytes / joined
        network = part / chip.network_bandwidth + work.reductions * NETWORK_SECONDS
    return Estimate(
        compute=work.flops / chip.peak_flops,
        memory=work.hbm_bytes / chip.hbm_bandwidth,
        reduction=sending + work.reductions * hops * HOP_SECONDS,
        halo=work.halo_bytes / link,
        network=network,
    )


def scaling(work: Work, chip: Chip, smallest: int = 1, slices: int = 1) -> dict[int, float]:
    """Returns {n: weak-scaling efficiency on n chips} for several numbers n of chips.

    The efficiency is the step time on `smallest` chips divided by the step time on n chips. The n
    chips are in as few slices, or hosts with GPUs, as possible.

    Args:
      work: work of one chip, the same for any number of chips.
      chip: specifications of the chip.
      smallest: first number of chips in the result: the chips over which the rows of one image are
        sharded. The other numbers are multiples of it.
      slices: maximum number of TPU slices, each of the largest size; ignored for GPUs.
    """
    most = LARGEST_CLUSTER if chip.is_gpu else slices * chip.largest
    counts = [smallest * scale for scale in SCALES if smallest * scale <= most]
    alone = estimate(work, chip, smallest).step
    return {
        count: alone / estimate(work, chip, count, -(-count // chip.largest)).step
        for count in counts
    }


# Environment variables of the TPU compiler. It runs without a TPU and must not query the metadata
# server of the cloud.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Compilation uses no TPU, so several processes can compile at the same time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of TPU pods, or hosts with GPUs.

    Attributes:
      name: chip and shape, such as `v5e:16x16` or `h100:4x8`.
      chip: specifications of the chips.
      shape: number of chips along each dimension of a slice, or the number of GPUs per host.
      num_slices: number of slices, or of hosts with GPUs.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def num_chips(self) -> int:
        """Number of chips in all slices or hosts."""
        return math.prod(self.shape) * self.num_slices


def parse_topology(name: str, num_slices: int = 1) -> Topology:
    """Parses the name of a slice, such as `v5e:16x16`, or of hosts with GPUs, such as `h100:4x8`.

    Args:
      name: chip and shape. The shape of a TPU slice is the number of chips along each dimension.
        For GPUs, it is the number of GPUs per host, as in `h100:8`, or the number of hosts and of
        GPUs per host, as in `h100:4x8`.
      num_slices: number of TPU slices of this shape; 1 for GPUs.

    Raises:
      DeepLabError: the chip is unknown or has no slices of this shape, `num_slices` is invalid, or
        the bandwidth between the slices is not published.
    """
    generation, _, text = name.partition(":")
    check_name("chip", generation, chips())
    chip = chips()[generation]
    example = "8" if chip.is_gpu else "x".join("4" * chip.dimensions)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise DeepLabError(
            f"invalid topology {name!r}: expected chip and shape, as in {generation}:{example}"
        )
    shape = tuple(map(int, text.split("x")))
    if num_slices < 1:
        raise DeepLabError(f"--num_slices={num_slices} must be at least 1")
    if chip.is_gpu:
        return _gpu_hosts(name, chip, shape, num_slices)
    if len(shape) != chip.dimensions:
        raise DeepLabError(
            f"invalid topology {name!r}: a {generation} slice has {chip.dimensions} dimensions, as "
            f"in {generation}:{example}"
        )
    if math.prod(shape) > chip.largest:
        raise DeepLabError(
            f"invalid topology {name!r}: it has {math.prod(shape)} chips; the largest {generation} "
            f"slice has {chip.largest}"
        )
    if num_slices > 1 and not chip.network_bandwidth:
        known = ", ".join(each for each, other in chips().items() if other.network_bandwidth)
        raise DeepLabError(
            f"--num_slices={num_slices} cannot be planned, because the bandwidth between slices of "
            f"{generation} is not published; chips with a published bandwidth: {known}"
        )
    return Topology(name, chip, shape, num_slices)


def _gpu_hosts(name: str, chip: Chip, shape: tuple[int, ...], num_slices: int) -> Topology:
    hosts, per_host = shape if len(shape) == 2 else (1, shape[0])
    generation = name.partition(":")[0]
    if len(shape) > 2 or per_host > chip.largest:
        raise DeepLabError(
            f"invalid topology {name!r}: give {generation}:N for one host with N GPUs (at most "
            f"{chip.largest}), or {generation}:HxN for H hosts, as in {generation}:4x8"
        )
    if num_slices > 1:
        raise DeepLabError(
            f"--num_slices={num_slices} is only for TPUs; for GPUs, give hosts x GPUs per host in "
            f"the topology, as in {generation}:{hosts}x{per_host}"
        )
    return Topology(name, chip, (per_host,), hosts)


def topology_devices(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a topology, for ahead-of-time compilation without the hardware.

    Raises:
      DeepLabError: the TPU or GPU compiler is not installed or does not support the topology, a
        chip is not one device, or JAX_PLATFORMS does not contain `cpu` (GPUs only).
    """
    try:
        devices = _gpu_devices(topology) if topology.chip.is_gpu else _tpu_devices(topology)
    except DeepLabError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        message = f"the compiler does not support {topology.name}: {reason}"
        raise DeepLabError(message) from error
    if len(devices) != topology.num_chips:
        raise DeepLabError(
            f"a plan requires one JAX device per chip, but {topology.name} has {len(devices)} "
            f"devices for {topology.num_chips} chips; give a topology with chips of another type"
        )
    return devices


def _tpu_devices(topology: Topology) -> list[jax.Device]:
    import_extra("libtpu", "tpu", "a plan for TPUs")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict[str, str | int] = {}
    if topology.chip.chip_config:
        options["chip_config_name"] = topology.chip.chip_config
    if topology.num_slices > 1:
        options["num_slices"] = topology.num_slices
    described = topologies.get_topology_desc(topology.name, platform="tpu", **options)
    return list(described.devices)


def _gpu_devices(topology: Topology) -> list[jax.Device]:
    import_extra("jax_cuda13_plugin", "cuda", "a plan for GPUs")
    # The plugin only compiles, which requires no CUDA libraries.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    if "cpu" not in os.environ.get("JAX_PLATFORMS", ""):
        raise DeepLabError("a plan for GPUs requires JAX_PLATFORMS=cpu in the environment")
    described = topologies.get_topology_desc(
        platform="cuda",
        target_config=topology.chip.target,
        # Number of slices, of hosts, and of GPUs per host.
        topology=f"1x{topology.num_slices}x{topology.shape[0]}",
    )
    return list(described.devices)
