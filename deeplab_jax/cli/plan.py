"""usage: deeplab-jax plan --config=FILE[:key=value,…] --topology=v5e:16x16 [--config.FIELD=VALUE …]

Estimates a training step on TPUs or GPUs, without the hardware: memory per chip, arithmetic,
communication and the largest batch that fits. With the published specifications of the chip, it
also computes a lower bound of the step time, the scaling efficiency and the duration of the run.
The command compiles the actual training step with the compiler of the chip, which takes minutes.
TPUs require `pip install 'deeplab_jax[tpu]'`. GPUs require `pip install 'deeplab_jax[cuda]'`. No
dataset is required.

Supported TPUs are v4, v5e, v5p and v6e; supported GPUs are a100, h100 and h200. The topology h100:8
is one host with 8 GPUs; h100:4x8 is four hosts with 8 GPUs each. training.batch_size is the number
of images per batch, across all chips.

examples:
  deeplab-jax plan --config=voc --topology=v5e:4x4 --config.model.dtype=bfloat16
  deeplab-jax plan --config=deeplab_v3:dataset=cityscapes --topology=v5e:16x16 --json \\
    --config.parallel.spatial=2 --config.training.batch_size=128
  deeplab-jax plan --config=deeplab_v3plus --topology=v5e:16x16 --num_slices=4 \\
    --config.training.batch_size=1024
  deeplab-jax plan --config=deeplab_v3 --topology=h100:8 --config.model.dtype=bfloat16
"""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deeplab_jax.cli.console import Console, make_table
from deeplab_jax.cli.flags import Flags

if TYPE_CHECKING:
    from deeplab_jax.planning import Plan
    from deeplab_jax.planning.duration import Duration
    from deeplab_jax.planning.hardware import Estimate
    from deeplab_jax.planning.plan import Traffic


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_config()
    flags.define(
        "topology",
        None,
        "For TPUs, CHIP:SHAPE with the shape of the slice, as in v5e:16x16. For GPUs of one host, "
        "CHIP:GPUS, as in h100:8. For GPUs of several hosts, CHIP:HOSTSxGPUS, as in h100:4x8 for "
        "4 hosts with 8 GPUs each.",
    )
    flags.define("num_slices", 1, "Number of TPU slices of the shape in --topology, at least 1.")
    flags.define(
        "num_classes",
        int,
        "Number of classes of the dataset; required for a dataset that is not published, unless "
        "the config sets data.class_names.",
        least=2,
    )
    flags.define(
        "validation_images",
        int,
        "Number of images per validation, from which the duration of the run is estimated "
        "(default: the config field evaluation.limit).",
        least=1,
    )
    flags.define(
        "largest_batch",
        False,
        "Search for the largest batch that fits into memory, by compiling several batch sizes.",
    )
    flags.define("json", False, "Print JSON instead of tables.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Estimates a training step on the given topology, and prints the estimates."""
    flags.refuse("plan", paths)
    flags.require("config", "topology")
    config = flags.read_config()
    # The accelerators of this machine are not used.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # The imports are local, so that --help and wrong flags do not wait for JAX.
    import jax

    from deeplab_jax.planning import plan

    # JAX reads the variable when it is imported; flags such as --compile_cache import it earlier.
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])

    planned = plan(
        config,
        flags.topology,
        num_slices=flags.num_slices,
        num_classes=flags.num_classes,
        validation_images=flags.validation_images,
        search_largest_batch=flags.largest_batch,
        reporter=console,
    )
    if flags.json:
        console.print(json.dumps(planned.describe(), indent=2))
        return
    for title, rows in _sections(planned):
        console.print(make_table((title, ""), rows))
        console.print("")
    if planned.summary:
        console.print(planned.summary)


def _sections(plan: "Plan") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield "step", _step_rows(plan)
    yield "memory per chip", _memory_rows(plan)
    if plan.traffic is not None:
        if plan.kernels:
            yield "kernels per GPU and step", _kernel_rows(plan)
        yield "communication per chip and step", _traffic_rows(plan, plan.traffic)
        if plan.traffic.causes:
            yield "communication by cause, and the least required", _cause_rows(plan.traffic)
    if plan.estimate is not None:
        times = _roofline_rows(plan, plan.estimate)
        yield "lower bounds of the time, from published specifications", times
    if plan.duration is not None:
        yield "estimated duration of the run", _duration_rows(plan, plan.duration)


def _step_rows(plan: "Plan") -> list[tuple[str, str]]:
    chip, mesh = plan.topology.chip, " × ".join(f"{n}={size}" for n, size in plan.mesh.items())
    flops, seconds = plan.flops_per_chip, plan.step.compile_seconds
    processor = f"{plan.step.compile_cpu_seconds:.0f} s of processor time"
    slices = f" in {plan.topology.num_slices} slices" if plan.topology.num_slices > 1 else ""
    if chip.is_gpu:
        slices = f" in {plan.num_hosts} host{'s' if plan.num_hosts > 1 else ''}"
    return [
        ("chips", f"{plan.topology.num_chips} × {chip.name}{slices}, mesh {mesh}"),
        ("images", f"{plan.global_batch} of {plan.crop_size[0]}×{plan.crop_size[1]}"),
        ("traced in", f"{plan.step.lower_seconds:.0f} s"),
        ("compiled in", f"{seconds:.0f} s ({processor})"),
        ("arithmetic per chip", "unknown" if flops is None else f"{flops / 1e12:.3f} TFLOP"),
        ("… counted by layer", f"{plan.analytic_flops_per_chip / 1e12:.3f} TFLOP"),
    ]


def _memory_rows(plan: "Plan") -> list[tuple[str, str]]:
    used, usable = plan.step.memory["total"], plan.usable_hbm_bytes
    verdict = "fits" if plan.step.fits else "DOES NOT FIT"
    parts = [
        (name, f"{size / 2**30:.2f} GiB")
        for name, size in plan.step.memory.items()
        if name != "total"
    ]
    largest = plan.largest_batch
    return [
        *parts,
        ("total", f"{used / 2**30:.2f} of {usable / 2**30:.2f} GiB: {verdict}"),
        ("largest batch", f"{largest.images * plan.mesh['data']} images ({largest.how})"),
    ]


def _kernel_rows(plan: "Plan") -> list[tuple[str, str]]:
    return [
        (kind, f"{found.count} with {found.flops / 1e9:,.1f} GFLOP and {_megabytes(found.bytes)}")
        for kind, found in plan.kernels.items()
    ]


def _traffic_rows(plan: "Plan", traffic: "Traffic") -> list[tuple[str, str]]:
    rows = [
        (kind, f"{found['count']} with {_megabytes(found['bytes'])}")
        for kind, found in traffic.collectives.items()
    ]
    expected, reduced = traffic.expected_reductions, traffic.reductions
    sums = {
        "gradients": (reduced.gradients, expected.gradients),
        "batch normalization": (reduced.batch_norm_sums, expected.batch_norm_sums),
    }
    if plan.topology.chip.is_gpu:
        # The compiler for GPUs concatenates gradients into vectors, whose shapes are like those of
        # the sums of batch normalization. Only the total can be compared.
        sums = {"gradients and statistics": (sum(reduced[:2]), expected.total)}
    return [
        *rows,
        *(
            (f"all-reduces of {name}", f"{_megabytes(size)} (expected {_megabytes(required)})")
            for name, (size, required) in sums.items()
        ),
        ("other all-reduces", _megabytes(reduced.others)),
        (
            "halo exchange",
            f"{traffic.halo['count']} with {_megabytes(traffic.halo['bytes'])}",
        ),
        *(
            (f"{name} between slices", f"{found['count']} with {_megabytes(found['bytes'])}")
            for name, found in traffic.between_slices.items()
        ),
        ("all-gathers of feature maps", str(traffic.gathered_activations["count"])),
    ]


def _cause_rows(traffic: "Traffic") -> list[tuple[str, str]]:
    return [
        (name, f"{cause.count} with {_megabytes(cause.bytes)} ({_least(cause.least)})")
        for name, cause in traffic.causes.items()
        if cause.bytes or cause.least
    ]


def _least(size: int | None) -> str:
    return "unknown" if size is None else _megabytes(size)


def _duration_rows(plan: "Plan", duration: "Duration") -> list[tuple[str, str]]:
    images = plan.validation_images
    included = "not included: give --validation_images" if images is None else f"{images} images"
    return [
        ("training steps", _hours(duration.steps)),
        ("waiting for input", _hours(duration.input)),
        ("cores per host for the input", str(duration.cores)),
        ("validations", f"{_hours(duration.validations)} ({included})"),
        ("checkpoints", _hours(duration.saves)),
        ("start", f"{duration.start_up:.0f} s, most of which is compilation"),
        ("goodput", f"{duration.goodput:.3f}"),
    ]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h"


def _roofline_rows(plan: "Plan", times: "Estimate") -> list[tuple[str, str]]:
    per_host = plan.global_batch / times.step / plan.num_hosts
    return [
        ("arithmetic", f"{1e3 * times.compute:.1f} ms"),
        ("memory traffic", f"{1e3 * times.memory:.1f} ms"),
        ("all-reduces", f"{1e3 * times.reduction:.1f} ms"),
        ("halo exchange", f"{1e3 * times.halo:.1f} ms"),
        ("all-reduces between slices or hosts", f"{1e3 * times.network:.1f} ms"),
        (
            "step",
            f"{1e3 * times.step:.1f} ms, {plan.global_batch / times.step:,.0f} images/s; bound by "
            f"{times.bound}",
        ),
        ("input", f"{per_host:,.0f} images/s for each of {plan.num_hosts} hosts"),
        ("training", f"{plan.num_steps * times.step / 3600:.2f} h for {plan.num_steps} steps"),
        *((f"efficiency on {n} chips", f"{share:.1%}") for n, share in plan.scaling.items()),
    ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
