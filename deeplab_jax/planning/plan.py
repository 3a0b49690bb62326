"""Plan of a training run on TPU slices or GPUs: memory, communication and step time."""

import copy
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel import data_size, make_mesh, spatial_size
from deeplab_jax.planning import collectives, compiled_step, hardware, hlo, reductions, work
from deeplab_jax.planning.causes import Cause, communication
from deeplab_jax.planning.dataset_stub import assemble_unseen
from deeplab_jax.planning.duration import Duration, Schedule, estimate_duration
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training.checks import batch_unit, check_pooled_statistics
from deeplab_jax.training.measurements import step_flops
from deeplab_jax.training.setup import Run


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Communication between chips, in bytes per chip and step.

    Attributes:
      collectives: number and bytes of all collectives: {kind: {"count", "bytes"}}.
      expected_reductions: bytes of all-reduces over the batch, computed from the shapes of the
        network.
      reductions: bytes of all-reduces over the batch in the compiled program.
      halo: count and bytes of exchanges between chips with neighboring rows of an image.
      gathered_activations: count and bytes of all-gathers and all-to-alls in which chips with
        different images exchange activations; should be 0.
      gathered_parameters: count and bytes of all-gathers and all-to-alls of fully sharded
        parameters.
      expected_gathers: bytes in all-gathers if each sharded parameter is gathered once, in the
        dtype of the computation.
      between_slices: number and bytes of the transfers between TPU slices, per slice and step:
        {kind: {"count", "bytes"}}. The only kind should be `all-reduce`.
      causes: actual and minimum communication for each cause in `causes.CAUSES`, such as
        `gradients` or `halo`.
    """

    collectives: dict[str, dict[str, int]]
    expected_reductions: reductions.Reductions
    reductions: reductions.Reductions
    halo: dict[str, int]
    gathered_activations: dict[str, int]
    gathered_parameters: dict[str, int]
    expected_gathers: int
    between_slices: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    causes: dict[str, Cause] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Plan of a training run.

    If the training step does not fit into memory, the attributes after `largest_batch` have their
    defaults, None or an empty dictionary.

    Attributes:
      topology: TPU slices, or hosts with GPUs.
      mesh: length of each mesh axis.
      architecture: keywords of `create_model` that build the network.
      crop_size: height and width of the training crops in pixels.
      global_batch: number of images per step, across all chips.
      num_steps: number of steps of the run.
      num_hosts: number of hosts, each of which loads the images of its own chips.
      step: result of the compilation.
      usable_hbm_bytes: bytes of memory per chip that programs can use.
      analytic_flops_per_chip: operations per step, computed from the layers: 2 · multiply-adds · 3
        passes (one forward, two backward; fewer in frozen parts) · images per chip, without
        rematerialization.
      largest_batch: largest batch that fits into memory.
      flops_per_chip: operations of the convolutions and matrix products of the compiled program;
        multiplications with padding values are not counted.
      hbm_traffic_per_chip: bytes that the program reads from and writes to the main memory.
      vmem_traffic_per_chip: bytes that the program reads from and writes to the on-chip vector
        memory of a TPU; 0 for GPUs.
      kernels: number and work of the GPU kernels of the program, by kind of kernel; empty for TPUs.
      traffic: communication between chips.
      estimate: minimum time of a step.
      scaling: scaling efficiency by number of chips.
      validation_images: number of validation images; None: unknown.
      duration: estimated duration of the run.
    """

    topology: hardware.Topology
    mesh: dict[str, int]
    architecture: dict[str, Any]
    crop_size: tuple[int, int]
    global_batch: int
    num_steps: int
    num_hosts: int
    step: compiled_step.CompiledStep
    usable_hbm_bytes: int
    analytic_flops_per_chip: float
    largest_batch: compiled_step.LargestBatch
    flops_per_chip: float | None = None
    hbm_traffic_per_chip: float | None = None
    vmem_traffic_per_chip: float | None = None
    kernels: dict[str, work.Kernels] = dataclasses.field(default_factory=dict)
    traffic: Traffic | None = None
    estimate: hardware.Estimate | None = None
    scaling: dict[int, float] = dataclasses.field(default_factory=dict)
    validation_images: int | None = None
    duration: Duration | None = None

    @property
    def summary(self) -> str:
        """Sentence with the estimated hours and the bottleneck of the run; empty if unknown."""
        if self.duration is None:
            return ""
        return (
            f"this run takes about {self.duration.total / 3600:.1f} hours on {self.topology.name}, "
            f"bound by {self.duration.bound}"
        )

    def describe(self) -> dict[str, Any]:
        """Returns the plan as a JSON-serializable dictionary."""
        step, traffic, largest = self.step, self.traffic, self.largest_batch
        found = {
            "topology": self.topology.name,
            "num_slices": self.topology.num_slices,
            "chip": dataclasses.asdict(self.topology.chip),
            "num_chips": self.topology.num_chips,
            "mesh": self.mesh,
            "architecture": self.architecture,
            "crop_size": list(self.crop_size),
            "global_batch": self.global_batch,
            "num_steps": self.num_steps,
            "num_hosts": self.num_hosts,
            "lower_seconds": step.lower_seconds,
            "compile_seconds": step.compile_seconds,
            "compile_cpu_seconds": step.compile_cpu_seconds,
            "fits": step.fits,
            "hbm_bytes_per_chip": step.memory["total"],
            "usable_hbm_bytes_per_chip": self.usable_hbm_bytes,
            "memory": step.memory,
            "largest_batch": {
                "per_part": largest.images,
                "global": largest.images * self.mesh["data"],
                "how": largest.how,
            },
            "analytic_flops_per_chip": self.analytic_flops_per_chip,
            "flops_per_chip": self.flops_per_chip,
            "hbm_traffic_per_chip": self.hbm_traffic_per_chip,
            "vmem_traffic_per_chip": self.vmem_traffic_per_chip,
            "kernels": {kind: dataclasses.asdict(each) for kind, each in self.kernels.items()},
            "collectives": traffic.collectives if traffic else None,
        }
        if traffic is None or self.estimate is None:
            return found
        expected, rate = traffic.expected_reductions, self.global_batch / self.estimate.step
        return found | {
            "all_reduce": {
                **traffic.reductions._asdict(),
                "expected_gradients": expected.gradients,
                "expected_batch_norm_sums": expected.batch_norm_sums,
            },
            "halo": traffic.halo,
            "causes": dataclasses.asdict(traffic)["causes"],
            "between_slices": traffic.between_slices,
            "activations_gathered_over_data": traffic.gathered_activations,
            "parameters_gathered": traffic.gathered_parameters
            | {"expected_bytes": traffic.expected_gathers},
            "roofline": {
                **dataclasses.asdict(self.estimate),
                "step": self.estimate.step,
                "bound": self.estimate.bound,
                "images_per_second": rate,
                "images_per_second_per_host": rate / self.num_hosts,
                "run_hours": self.num_steps * self.estimate.step / 3600,
                "scaling_efficiency": {str(n): value for n, value in self.scaling.items()},
            },
            "duration": self._describe_duration(),
        }

    def _describe_duration(self) -> dict[str, Any] | None:
        if self.duration is None:
            return None
        return dataclasses.asdict(self.duration) | {
            "total": self.duration.total,
            "goodput": self.duration.goodput,
            "validation_images": self.validation_images,
            "summary": self.summary,
        }


def plan(
    config: ConfigDict,
    topology_name: str,
    *,
    num_slices: int = 1,
    num_classes: int | None = None,
    validation_images: int | None = None,
    search_largest_batch: bool = False,
    reporter: Reporter | None = None,
) -> Plan:
    """Plans a training run on TPU slices or GPUs, without the hardware and without the dataset.

    The training step is compiled ahead of time, and the compiled program is analyzed.

    Args:
      config: see deeplab_jax/config_fields.py; `config.parallel` determines the mesh.
      topology_name: name of a TPU slice, such as `v5e:16x16`, or of hosts with GPUs, such as
        `h100:4x8`; see `parse_topology`.
      num_slices: number of TPU slices, over which the axis `data` of the mesh extends.
      num_classes: number of classes, if the config does not name the classes of the dataset.
      validation_images: number of images of the validation split; None: `evaluation.limit` of the
        config. If both are None, the duration does not include validations.
      search_largest_batch: whether to search for the largest batch by compiling the step several
        times; by default, it is estimated from one compilation.
      reporter: receives progress messages.

    Raises:
      DeepLabError: the config or the topology is invalid, or the compiler is not installed.
    """
    reporter = reporter or LoggingReporter()
    topology = hardware.parse_topology(topology_name, num_slices)
    _check_slices(topology, config.parallel.spatial)
    devices = hardware.topology_devices(topology)
    mesh = make_mesh(devices, data=config.parallel.data, spatial=config.parallel.spatial)
    run = assemble_unseen(config, mesh, num_classes, reporter)
    batch, (height, width) = run.config.training.batch_size, run.augmentation.crop_size
    reporter.message(
        f"compiling a training step of {batch} images for {topology.name}; this can take minutes"
    )
    step = compiled_step.compile_step(run)
    usable = step.usable or topology.chip.usable_hbm_bytes
    # The compiler refuses a program that is too large for a TPU, but not one for a GPU.
    step = dataclasses.replace(step, fits=step.fits and step.memory["total"] <= usable)
    planned = Plan(
        topology=topology,
        mesh=dict(mesh.shape),
        architecture=run.model.architecture.describe(),
        crop_size=(height, width),
        global_batch=batch,
        num_steps=run.config.training.num_steps,
        num_hosts=len({device.process_index for device in devices}),
        step=step,
        usable_hbm_bytes=usable,
        analytic_flops_per_chip=step_flops(run) / topology.num_chips,
        largest_batch=_largest_batch(run, mesh, step, usable, search_largest_batch, reporter),
    )
    if not step.fits:
        return planned
    return _with_duration(_with_traffic(planned, run, spatial_size(mesh)), run, validation_images)


def _check_slices(topology: hardware.Topology, spatial: int) -> None:
    per_slice = topology.num_chips // topology.num_slices
    if spatial < 1 or per_slice % spatial:
        raise DeepLabError(
            f"parallel.spatial={spatial} must be a divisor of {per_slice}, the number of chips per "
            "slice or host; the rows of an image cannot be sharded over several slices or hosts"
        )


def _largest_batch(
    run: Run,
    mesh: Mesh,
    step: compiled_step.CompiledStep,
    usable: int,
    search: bool,
    reporter: Reporter,
) -> compiled_step.LargestBatch:
    parts, total = data_size(mesh), step.memory["total"]
    images = run.config.training.batch_size // parts
    fixed = fixed_memory(run) + step.memory.get("program", 0)
    if fixed >= total:
        # The step never stores all gradients at the same time. The memory is then assumed to be
        # proportional to the batch.
        fixed = 0
    group = run.model.architecture.ghost_batch_size
    unit = batch_unit(group, run.config.training.accumulation_steps, mesh)
    if not search:
        found = compiled_step.estimated_largest_batch(total, fixed, usable, images, unit)
        return found._replace(images=0) if _refuses(run, found.images * parts) else found

    def used(images: int) -> int | None:
        if _refuses(run, images * parts):
            return None
        reporter.message(f"compiling for a batch of {images * parts} images")
        config = copy.deepcopy(run.config)
        config.training.batch_size = images * parts
        tried = compiled_step.compile_step(dataclasses.replace(run, config=config))
        return tried.memory["total"]

    return compiled_step.searched_largest_batch(used, (images, total), fixed, usable, unit)


def _refuses(run: Run, batch_size: int) -> bool:
    """Returns whether training refuses a batch because it has too few images.

    An example is one image whose pooled features batch normalization would map to 0.
    """
    together = batch_size // run.config.training.accumulation_steps
    crop_size = run.augmentation.crop_size
    try:
        check_pooled_statistics(run.model.architecture, crop_size, together, Reporter())
    except DeepLabError:
        return True
    return False


def fixed_memory(run: Run) -> int:
    """Returns the bytes per chip that do not depend on the batch: the state and one gradient."""
    state, _ = compiled_step.abstract_arguments(run)
    leaves = jax.tree.leaves((state, state.variables["params"]))
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )


def _with_traffic(planned: Plan, run: Run, smallest: int) -> Plan:
    """Returns a copy of a plan with the communication and step time of the compiled program.

    Args:
      planned: plan whose step fits.
      run: planned training run.
      smallest: smallest number of chips in `Plan.scaling`, equal to the number of chips over
        which the rows of one image are sharded.
    """
    program = hlo.parse(planned.step.text)
    flops, moved = work.total_flops(program), work.memory_traffic(program)
    topology = planned.topology
    found = collectives.find_collectives(program, planned.mesh)
    traffic = _traffic(run, found, topology.num_chips // topology.num_slices)
    joined = [
        each for each in collectives.within_slices(found) if each.kind != "collective-permute"
    ]
    done = hardware.Work(
        flops=flops,
        hbm_bytes=moved.get(work.MAIN_MEMORY, 0),
        reduced_bytes=sum(
            each.bytes if each.kind == "all-reduce" else each.bytes / 2 for each in joined
        ),
        reductions=sum(each.times for each in joined),
        halo_bytes=traffic.halo["bytes"],
    )
    chip = topology.chip
    return dataclasses.replace(
        planned,
        flops_per_chip=flops,
        hbm_traffic_per_chip=done.hbm_bytes,
        vmem_traffic_per_chip=moved.get(work.VECTOR_MEMORY, 0),
        kernels=work.kernels(program) if chip.is_gpu else {},
        traffic=traffic,
        estimate=hardware.estimate(done, chip, topology.num_chips, topology.num_slices),
        scaling=hardware.scaling(done, chip, smallest, topology.num_slices),
    )


def _with_duration(planned: Plan, run: Run, validation_images: int | None) -> Plan:
    """Returns a copy of a plan with the estimated duration of the run."""
    assert planned.estimate is not None
    schedule = Schedule.of(run.config, planned.crop_size, planned.num_hosts, validation_images)
    state, _ = compiled_step.abstract_arguments(run)
    found = estimate_duration(
        schedule,
        step_seconds=planned.estimate.step,
        bound=planned.estimate.bound,
        state_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        compile_seconds=planned.step.compile_seconds,
    )
    images = schedule.validation_images
    return dataclasses.replace(planned, validation_images=images, duration=found)


def _traffic(run: Run, found: list[collectives.Collective], chips_per_slice: int) -> Traffic:
    architecture, parts = run.model.architecture, run.config.training.accumulation_steps
    variables = compiled_step.abstract_arguments(run)[0].variables
    transfers = collectives.between_slices(found, chips_per_slice)
    everything, found = found, collectives.within_slices(found)
    return Traffic(
        collectives=collectives.totals(everything),
        between_slices=transfers,
        expected_reductions=reductions.expected_reductions(architecture, variables, parts),
        reductions=reductions.found_reductions(found, variables, parts),
        halo=reductions.halo_traffic(found),
        gathered_activations=reductions.gathered_activations(found, variables),
        gathered_parameters=reductions.gathered_parameters(found, variables),
        expected_gathers=reductions.expected_gathers(architecture, variables["params"]),
        causes=communication(
            found,
            run.model,
            variables,
            run.augmentation.crop_size,
            images=run.config.training.batch_size // data_size(run.mesh),
            parts=spatial_size(run.mesh),
            accumulation_steps=parts,
        ),
    )
