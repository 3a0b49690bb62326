"""Plans large networks on TPU pods: `python -m experiments.pod_plans DIRECTORY [NAME…]`.

Plans each network as `deeplab-jax plan --json` does, writes DIRECTORY/NAME.json, and prints a table
of all plans in DIRECTORY. Existing plans are not compiled again; a plan takes several minutes.
"""

import json
import pathlib
import sys
from typing import Any

from deeplab_jax import config as configs

SLICE = "v5e:16x16"
HALVES = {"augmentation.crop_size": "1025,2049", "parallel.spatial": "2"}
XCEPTION, RESNET = "deeplab_v3plus", "deeplab_v3"
# Config and changed fields of each plan; batch sizes are across 256 chips.
PLANS: dict[str, tuple[str, dict[str, str]]] = {
    "xception_513": (XCEPTION, {"training.batch_size": "1024"}),
    "resnet_513": (RESNET, {"training.batch_size": "1024"}),
    "xception_1025": (
        f"{XCEPTION}:dataset=cityscapes",
        {"training.batch_size": "128"} | HALVES,
    ),
    "resnet_1025": (f"{RESNET}:dataset=cityscapes", {"training.batch_size": "128"} | HALVES),
}
COLUMNS = (
    "network",
    "crop",
    "batch",
    "compiled in (processor)",
    "GiB per chip",
    "largest batch",
    "TFLOP per chip (counted by layer)",
    "gradient all-reduces (expected), MB",
    "batch-norm all-reduces (expected), MB",
    "halo exchanges",
    "feature maps gathered",
    "step, at least",
    "efficiency on 256 chips",
)


def planned(name: str) -> dict[str, Any]:
    """Compiles one of `PLANS` and returns its description."""
    # Imported here, because printing existing plans needs no compiler.
    from deeplab_jax.planning import plan

    reference, fields = PLANS[name]
    config = configs.load(reference)
    for field, text in (fields | {"model.dtype": "bfloat16"}).items():
        configs.override(config, field, text)
    return plan(config, SLICE).describe()


def row(plan: dict[str, Any]) -> list[str]:
    """Returns the cells of the table row of a plan."""
    architecture = plan["architecture"]
    spatial = f", {plan['mesh']['spatial']} chips per image" if plan["mesh"]["spatial"] > 1 else ""
    cells = [
        architecture["backbone"],
        f"{'×'.join(map(str, plan['crop_size']))}{spatial}",
        str(plan["global_batch"]),
        f"{plan['compile_seconds']:.0f} s ({plan['compile_cpu_seconds']:.0f} s)",
        f"{plan['hbm_bytes_per_chip'] / 2**30:.2f}" + ("" if plan["fits"] else " (too much)"),
        str(plan["largest_batch"]["global"]),
    ]
    if not plan["fits"]:
        return [*cells, f"— ({plan['analytic_flops_per_chip'] / 1e12:.2f})", *["—"] * 6]
    sums, halo, roofline = plan["all_reduce"], plan["halo"], plan["roofline"]
    flops = plan["flops_per_chip"], plan["analytic_flops_per_chip"]
    return [
        *cells,
        "{:.2f} ({:.2f})".format(*(each / 1e12 for each in flops)),
        f"{sums['gradients'] / 1e6:.2f} ({sums['expected_gradients'] / 1e6:.2f})",
        f"{sums['batch_norm_sums'] / 1e6:.3f} ({sums['expected_batch_norm_sums'] / 1e6:.3f})",
        f"{halo['count']}, {halo['bytes'] / 1e6:.1f} MB",
        str(plan["activations_gathered_over_data"]["count"]),
        f"{1e3 * roofline['step']:.1f} ms, {roofline['bound']}",
        f"{roofline['scaling_efficiency']['256']:.1%}",
    ]


def main(arguments: list[str]) -> None:
    """Compiles missing plans and prints the table."""
    if not arguments:
        sys.exit(__doc__)
    directory, names = pathlib.Path(arguments[0]), arguments[1:] or list(PLANS)
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = directory / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(planned(name), indent=2))
    rows = [
        row(json.loads((directory / f"{name}.json").read_text()))
        for name in PLANS
        if (directory / f"{name}.json").exists()
    ]
    for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows):
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main(sys.argv[1:])
