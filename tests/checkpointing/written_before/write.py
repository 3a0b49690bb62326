"""Writes the models beside it, as commit 18ac5dd wrote them, with the logits that they gave.

  git worktree add before 18ac5dd
  PYTHONPATH=before/tests:before python tests/checkpointing/written_before/write.py

The folder `data` of the current directory holds the prepared `shapes`. Before format version 2 a
file held only the keywords that its user gave, and the code's defaults decided the rest: here,
rates that did not follow the output stride, and keywords that the network did not read.
"""

import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from random_variables import random_variables

from deeplab_jax import config as configs
from deeplab_jax import train
from deeplab_jax.checkpointing import ModelDescription, read_model, write_model
from deeplab_jax.training.workdir import claim

HERE = pathlib.Path(__file__).parent
SMALL = {"backbone": "mobilenet_v2", "depth_multiplier": 0.05, "num_classes": 3}
# Each leaves rates unset at another output stride than the published one; the last keywords of v2
# and v1 were ignored.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "v1": ("deeplab_v1", {"fc_channels": 8, "output_stride": 16, "aspp_channels": 8}),
    "v2": ("deeplab_v2", {"output_stride": 16, "separable": True, "dropout_rate": 0.3}),
    "torchvision": (
        "torchvision/deeplabv3_resnet50",
        {"output_stride": 16, "aspp_channels": 8, "low_level_channels": 8},
    ),
}
NAMES, PALETTE = ("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0))
KEPT = ("config.json", "model.json", "metrics.jsonl", "checkpoints")


def main() -> None:
    """Writes every directory and the logits."""
    image = np.random.default_rng(18).integers(0, 256, (1, 33, 49, 3), np.uint8)
    logits = {"image": image}
    for name, (architecture, keywords) in NETWORKS.items():
        directory = HERE / name
        shutil.rmtree(directory, ignore_errors=True)
        logits[name] = write_network(directory, architecture, SMALL | keywords, image)
    logits["v2/workdir"] = write_workdir(HERE / "v2" / "workdir", image)
    for manifest in HERE.rglob("files.json"):
        remove_paths(manifest)
    np.savez_compressed(HERE / "logits.npz", **logits)


def write_network(
    directory: pathlib.Path, architecture: str, keywords: dict[str, Any], image: np.ndarray
) -> np.ndarray:
    """Writes a model directory, its resolved architecture, and a config; returns the logits."""
    description = ModelDescription(architecture, keywords, NAMES, PALETTE)
    model = description.create_model()
    write_model(directory / "model", description, random_variables(model, image))
    described = json.dumps(model.architecture.describe(), indent=2) + "\n"
    (directory / "architecture.json").write_text(described)
    config = configs.default()
    config.model.architecture = architecture
    for name in keywords.keys() - {"num_classes"}:
        config.model[name] = keywords[name]
    claim(directory, config)
    return logits_of(directory / "model", image)


def write_workdir(workdir: pathlib.Path, image: np.ndarray) -> np.ndarray:
    """Trains for three steps and keeps the state after two; returns the logits."""
    config = configs.load(str(HERE / "recipe.py"))
    train(config, workdir)
    shutil.rmtree(workdir / "checkpoints" / "3")
    for path in workdir.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    rows = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text(
        "".join(row for row in rows if json.loads(row).get("step", 0) < 3)
    )
    return logits_of(workdir, image)


def remove_paths(manifest: pathlib.Path) -> None:
    """Empties the files in which Orbax notes where on this machine it wrote."""
    content = json.loads(manifest.read_text())
    for path in manifest.parent.rglob("commit_success.txt"):
        path.write_text("")
        name = path.relative_to(manifest.parent).as_posix()
        if name in content["files"]:
            content["files"][name] = [0, 0]
    manifest.write_text(json.dumps(content, indent=1) + "\n")


def logits_of(path: pathlib.Path, image: np.ndarray) -> np.ndarray:
    """Returns what the model of a directory gives."""
    stored = read_model(path)
    return np.asarray(jax.jit(stored.model.apply)(stored.variables, image))


if __name__ == "__main__":
    main()
