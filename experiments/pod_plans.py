"""Plans large networks on TPUs and GPUs: `python -m experiments.pod_plans DIRECTORY [NAME…]`.

Plans each network like `deeplab-jax plan --json`, and writes the plan to DIRECTORY/NAME.json. After
each plan, the figures of all plans in DIRECTORY are written to
experiments/results/measured/pod_plans.csv. A plan takes several minutes on one core. Networks with
a plan in DIRECTORY are not planned again, so an interrupted call can be repeated.
"""

import json
import os
import pathlib
import sys
from typing import Any, NamedTuple

from deeplab_jax import config as configs
from experiments import measured


class PlannedRun(NamedTuple):
    """Training run to plan.

    Attributes:
      config: name of the config, with optional :key=value arguments.
      topology: chip and shape, such as v5e:16x16.
      num_slices: number of TPU slices.
      fields: changed config fields and their values; batch sizes are across all chips.
    """

    config: str
    topology: str
    num_slices: int
    fields: dict[str, str]


XCEPTION, RESNET, CITYSCAPES = "deeplab_v3plus", "deeplab_v3", ":dataset=cityscapes"
HALVES = {"augmentation.crop_size": "1025,2049", "parallel.spatial": "2"}
PLANS = {
    "resnet_513_h100": PlannedRun(RESNET, "h100:8", 1, {"training.batch_size": "128"}),
    "xception_513": PlannedRun(XCEPTION, "v5e:16x16", 1, {"training.batch_size": "1024"}),
    "xception_513_slices": PlannedRun(XCEPTION, "v5e:16x16", 4, {"training.batch_size": "4096"}),
    "resnet_1025": PlannedRun(
        RESNET + CITYSCAPES, "v5p:4x4x4", 1, {"training.batch_size": "32"} | HALVES
    ),
}


def planned(name: str) -> dict[str, Any]:
    """Plans a training run and returns the plan as a dictionary, with commit, hardware and date.

    Args:
      name: name of the run, a key of `PLANS`.
    """
    # As in `deeplab-jax plan`, JAX must not use the accelerators of this machine.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # The import is local, because writing the table of existing plans requires no compiler.
    from deeplab_jax.planning import plan

    run, origin = PLANS[name], measured.origin(f"compiled on {measured.processor(['jax'])}")
    config = configs.load(run.config)
    for field, text in (run.fields | {"model.dtype": "bfloat16"}).items():
        configs.override(config, field, text)
    described = plan(config, run.topology, num_slices=run.num_slices).describe()
    return described | {"origin": origin}


def label(plan: dict[str, Any]) -> str:
    """Returns the row name of a plan: backbone, crop size, chips per image, batch and topology."""
    slices = f"{plan['num_slices']} × " if plan["num_slices"] > 1 else ""
    spatial = plan["mesh"]["spatial"]
    shared = f", {spatial} chips per image" if spatial > 1 else ""
    return (
        f"{plan['architecture']['backbone']}, {'×'.join(map(str, plan['crop_size']))}{shared}, "
        f"batch {plan['global_batch']}, {slices}{plan['topology']}"
    )


def figures(plan: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Returns the figures of a plan as {quantity: (value, unit)}.

    For a step that does not fit into memory, most figures are missing.
    """
    found = {
        "memory per chip": (f"{plan['hbm_bytes_per_chip'] / 2**30:.2f}", "GiB"),
        "largest batch": (str(plan["largest_batch"]["global"]), ""),
        "counted by layer": (f"{plan['analytic_flops_per_chip'] / 1e12:.2f}", "TFLOP"),
    }
    if not plan["fits"]:
        return found | {"step, at least": ("does not fit", "")}
    sums, roofline = plan["all_reduce"], plan["roofline"]
    reduced = sums["gradients"] + sums["batch_norm_sums"]
    network = sum(each["bytes"] for each in plan["between_slices"].values())
    return found | {
        "arithmetic per chip": (f"{plan['flops_per_chip'] / 1e12:.2f}", "TFLOP"),
        "main memory": (f"{plan['hbm_traffic_per_chip'] / 1e9:.1f}", "GB"),
        "vector memory": (f"{plan['vmem_traffic_per_chip'] / 1e9:.1f}", "GB"),
        "gradients and statistics": (f"{reduced / 1e6:.1f}", "MB"),
        "halo": (f"{plan['halo']['bytes'] / 1e6:.1f}", "MB"),
        "between slices": (f"{network / 1e6:.1f}", "MB"),
        "step, at least": (f"{1e3 * roofline['step']:.1f}", "ms"),
        "bound by": (roofline["bound"], ""),
        "input per host": (f"{roofline['images_per_second_per_host']:.0f}", "images/s"),
        "run, at least": (f"{roofline['run_hours']:.1f}", "h"),
        "compilation, processor time": (f"{plan['compile_cpu_seconds']:.0f}", "s"),
    }


def write_table(directory: pathlib.Path) -> None:
    """Writes pod_plans.csv, a table that the docs show, from all plans in a directory."""
    paths = [directory / f"{name}.json" for name in PLANS]
    command = f"python -m experiments.pod_plans {directory}"
    rows = [
        (label(plan), quantity, value, unit, command, *plan["origin"].values())
        for plan in (json.loads(path.read_text()) for path in paths if path.exists())
        for quantity, (value, unit) in figures(plan).items()
    ]
    measured.write(measured.MEASURED / "pod_plans.csv", rows)


def main(arguments: list[str]) -> None:
    """Plans each run that has no plan in the directory yet, and updates the table after each run.

    Args:
      arguments: directory of the plans, then names of runs, which are keys of `PLANS` (default: all
        runs).
    """
    if not arguments or not set(arguments[1:]) <= set(PLANS):
        sys.exit(f"{__doc__}\nnames: {', '.join(PLANS)}")
    directory, names = pathlib.Path(arguments[0]), arguments[1:] or list(PLANS)
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = directory / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(planned(name), indent=2))
        write_table(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
