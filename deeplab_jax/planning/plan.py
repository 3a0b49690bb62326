"""Plan of training a config on a slice of a pod: memory, communication and time."""

import copy
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax.models.summary import summarize
from deeplab_jax.parallel import data_size, make_mesh, space_size
from deeplab_jax.planning import hlo
from deeplab_jax.planning.collectives import Collective, find_collectives, totals
from deeplab_jax.planning.compiled_step import (
    CompiledStep,
    LargestBatch,
    abstract_arguments,
    compile_step,
    estimated_largest_batch,
    searched_largest_batch,
)
from deeplab_jax.planning.dataset_stub import assemble_unseen
from deeplab_jax.planning.hardware import (
    Estimate,
    Topology,
    Work,
    estimate,
    parse_topology,
    scaling,
    topology_devices,
)
from deeplab_jax.planning.reductions import (
    Reductions,
    expected_gathers,
    expected_reductions,
    found_reductions,
    gathered_activations,
    gathered_parameters,
    halo_traffic,
)
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training.setup import Run

# A backward pass computes two products for each of the forward pass: of inputs and of kernels.
PASSES = 3


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Traffic between the chips in a step: counts, and bytes per chip and step.

    Attributes:
      collectives: {kind: {"count", "bytes"}} of all.
      expected_reductions: sums over the batch that the network's shapes ask for.
      reductions: those that the compiler put there.
      halo: between chips with neighbouring rows.
      gathered_activations: of other chips' images, of which there should be none.
      gathered_parameters: of those that chips keep in parts.
      expected_gathers: bytes of these, once, in the dtype of the computation.
    """

    collectives: dict[str, dict[str, int]]
    expected_reductions: Reductions
    reductions: Reductions
    halo: dict[str, int]
    gathered_activations: dict[str, int]
    gathered_parameters: dict[str, int]
    expected_gathers: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step on a slice.

    Attributes:
      topology: the slice.
      mesh: length of each axis.
      architecture, crop_size, global_batch: what is trained.
      step: what the compiler made of it.
      usable_hbm_bytes: of a chip's memory.
      analytic_flops_per_chip: 2 · multiply-adds · 3 passes · images a chip; rematerialisation comes
        on top.
      flops_per_chip: the compiler's, with every round of loops.
      hbm_traffic_per_chip: bytes that the compiler counts as read and written; None: it does not
        fit.
      traffic: between chips; None where it does not fit.
      largest_batch: images a part of the batch.
      estimate: seconds of a step; None where it does not fit.
      scaling: efficiency by number of chips; empty where it does not fit.
    """

    topology: Topology
    mesh: dict[str, int]
    architecture: dict[str, Any]
    crop_size: tuple[int, int]
    global_batch: int
    step: CompiledStep
    usable_hbm_bytes: int
    analytic_flops_per_chip: float
    flops_per_chip: float | None
    hbm_traffic_per_chip: float | None
    traffic: Traffic | None
    largest_batch: LargestBatch
    estimate: Estimate | None
    scaling: dict[int, float]

    def describe(self) -> dict[str, Any]:
        """Returns the plan as JSON-ready values."""
        step, traffic = self.step, self.traffic
        images = self.largest_batch.images
        found = {
            "topology": self.topology.name,
            "chip": dataclasses.asdict(self.topology.chip),
            "num_chips": self.topology.num_chips,
            "mesh": self.mesh,
            "architecture": self.architecture,
            "crop_size": list(self.crop_size),
            "global_batch": self.global_batch,
            "lower_seconds": step.lower_seconds,
            "compile_seconds": step.compile_seconds,
            "compile_cpu_seconds": step.compile_cpu_seconds,
            "fits": step.fits,
            "hbm_bytes_per_chip": step.memory["total"],
            "usable_hbm_bytes_per_chip": self.usable_hbm_bytes,
            "memory": step.memory,
            "largest_batch": {
                "per_part": images,
                "global": images * self.mesh["data"],
                "how": self.largest_batch.how,
            },
            "analytic_flops_per_chip": self.analytic_flops_per_chip,
            "flops_per_chip": self.flops_per_chip,
            "hbm_traffic_per_chip": self.hbm_traffic_per_chip,
            "collectives": traffic.collectives if traffic else None,
        }
        if traffic is None or self.estimate is None:
            return found
        return found | {
            "all_reduce": {
                "gradients": traffic.reductions.gradients,
                "batch_norm_sums": traffic.reductions.batch_norm_sums,
                "others": traffic.reductions.others,
                "expected_gradients": traffic.expected_reductions.gradients,
                "expected_batch_norm_sums": traffic.expected_reductions.batch_norm_sums,
            },
            "halo": traffic.halo,
            "activations_gathered_over_data": traffic.gathered_activations,
            "parameters_gathered": traffic.gathered_parameters
            | {"expected_bytes": traffic.expected_gathers},
            "roofline": dataclasses.asdict(self.estimate)
            | {
                "step": self.estimate.step,
                "bound": self.estimate.bound,
                "images_per_second": self.global_batch / self.estimate.step,
                "scaling_efficiency": {str(n): share for n, share in self.scaling.items()},
            },
        }


def plan(
    config: ConfigDict,
    topology_name: str,
    *,
    num_classes: int | None = None,
    search_largest_batch: bool = False,
    reporter: Reporter | None = None,
) -> Plan:
    """Compiles the train step of a config for a slice that need not exist, and reads the result.

    Args:
      config: see deeplab_jax/config_fields.py; `config.parallel` lays out the slice.
      topology_name: as in `v5e:16x16`.
      num_classes: of a data set whose classes the config does not name.
      search_largest_batch: find the largest batch by compiling again, some times; else it is
        estimated.
      reporter: receives what is being compiled.

    Raises:
      DeepLabError: the config or the topology is not right, or the TPU compiler is not installed.
    """
    reporter = reporter or LoggingReporter()
    topology = parse_topology(topology_name)
    devices = topology_devices(topology)
    mesh = make_mesh(devices, data=config.parallel.data, space=config.parallel.spatial)
    run = assemble_unseen(config, mesh, num_classes, reporter)
    reporter.message(
        f"compiling the step of {run.config.training.batch_size} images for {topology.name}, "
        "which can take minutes"
    )
    step = compile_step(run)
    usable = step.usable or topology.chip.usable_hbm_bytes
    images = run.config.training.batch_size // data_size(mesh)
    fixed = fixed_memory(run) + step.memory.get("program", 0)
    if search_largest_batch:

        def used(images: int) -> int:
            reporter.message(f"compiling for {images} images a part of the batch")
            return compile_step(_with_batch(run, images * data_size(mesh))).memory["total"]

        largest = searched_largest_batch(used, (images, step.memory["total"]), fixed, usable)
    else:
        largest = estimated_largest_batch(step.memory["total"], fixed, usable, images)
    return _read(run, topology, mesh, step, usable, largest)


def fixed_memory(run: Run) -> int:
    """Returns the bytes a chip that any batch needs: the state, and a gradient."""
    state, _ = abstract_arguments(run)

    def on_a_chip(leaf: jax.ShapeDtypeStruct) -> int:
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    parts = jax.tree.leaves(state), jax.tree.leaves(state.variables["params"])
    return sum(on_a_chip(leaf) for leaves in parts for leaf in leaves)


def _with_batch(run: Run, batch_size: int) -> Run:
    config = copy.deepcopy(run.config)
    config.training.batch_size = batch_size
    return dataclasses.replace(run, config=config)


def _read(
    run: Run,
    topology: Topology,
    mesh: Mesh,
    step: CompiledStep,
    usable: int,
    largest: LargestBatch,
) -> Plan:
    batch, crop = run.config.training.batch_size, tuple(run.augmentation.crop_size)
    macs = summarize(run.model, crop).macs
    known: dict[str, Any] = {
        "topology": topology,
        "mesh": dict(mesh.shape),
        "architecture": run.model.architecture.describe(),
        "crop_size": crop,
        "global_batch": batch,
        "step": step,
        "usable_hbm_bytes": usable,
        "analytic_flops_per_chip": 2 * macs * PASSES * batch / topology.num_chips,
        "largest_batch": largest,
    }
    if not step.fits:
        return Plan(
            **known,
            flops_per_chip=None,
            hbm_traffic_per_chip=None,
            traffic=None,
            estimate=None,
            scaling={},
        )
    program = hlo.parse(step.text)
    flops = step.costs["flops"] + hlo.flops_in_later_rounds(program)
    hbm = step.costs["bytes"] + hlo.bytes_in_later_rounds(program)
    collectives = find_collectives(program, dict(mesh.shape))
    traffic = _traffic(run, collectives)
    of_a_chip = _work(flops, hbm, collectives, traffic)
    return Plan(
        **known,
        flops_per_chip=flops,
        hbm_traffic_per_chip=hbm,
        traffic=traffic,
        estimate=estimate(of_a_chip, topology.chip, topology.num_chips),
        scaling=scaling(of_a_chip, topology.chip, space_size(mesh)),
    )


def _traffic(run: Run, collectives: list[Collective]) -> Traffic:
    state, _ = abstract_arguments(run)
    parts = run.config.training.accumulation_steps
    return Traffic(
        collectives=totals(collectives),
        expected_reductions=expected_reductions(run.model.architecture, state.variables, parts),
        reductions=found_reductions(collectives, state.variables, parts),
        halo=halo_traffic(collectives),
        gathered_activations=gathered_activations(collectives, state.variables),
        gathered_parameters=gathered_parameters(collectives, state.variables),
        expected_gathers=expected_gathers(run.model.architecture, state.variables["params"]),
    )


def _work(flops: float, hbm: float, collectives: list[Collective], traffic: Traffic) -> Work:
    joined = [each for each in collectives if each.kind != "collective-permute"]
    return Work(
        flops=flops,
        hbm_bytes=hbm,
        reduced_bytes=sum(
            each.bytes if each.kind == "all-reduce" else each.bytes / 2 for each in joined
        ),
        reductions=sum(each.times for each in joined),
        halo_bytes=traffic.halo["bytes"],
    )
