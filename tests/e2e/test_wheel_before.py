"""A workdir that the wheel of an earlier commit wrote is resumed and evaluated.

The wheel is built from the last commit before the fields of a config were renamed.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMMIT = "a4c6812"
# The same run under the names of then and of today.
THEN = {
    "loss.resolution": "scores",
    "loss.hard_pixel_share": 0.9,
    "loss.hard_pixel_step": 2,
    "model.batch_norm_group": 2,
    "augmentation.max_class_share": 0.95,
    "training.rematerialize": "units",
    "data.duplicate": ("disc",),
}
NOW = {
    "loss.upsample_logits": False,
    "loss.hard_pixel_fraction": 0.9,
    "loss.hard_pixel_anneal_steps": 2,
    "model.ghost_batch_size": 2,
    "augmentation.max_class_fraction": 0.95,
    "training.remat": "block",
    "data.oversample_classes": ("disc",),
}
SAME = {
    "model.depth_multiplier": 0.25,
    "model.aspp_channels": 8,
    "model.decoder_convs": ((3, 8),),
    "augmentation.crop_size": (33, 49),
    "training.num_steps": 3,
    "training.batch_size": 4,
    "checkpoint.every_steps": 2,
    "evaluation.every_steps": 2,
}


def write_recipe(path, fields):
    lines = "".join(f"    config.{field} = {value!r}\n" for field, value in fields.items())
    path.write_text(
        "from deeplab_jax import config as configs\n\n\ndef get_config(text=None):\n"
        f'    config = configs.load("shapes:cpu")\n{lines}    return config\n'
    )


def install_before(directory):
    """Returns a folder with the package of the earlier commit."""
    known = subprocess.run(
        ["git", "-C", ROOT, "cat-file", "-e", f"{COMMIT}^{{commit}}"], check=False
    )
    if known.returncode:
        pytest.skip(f"this clone does not have commit {COMMIT}, as a shallow one")
    source, site = directory / "source", directory / "site"
    source.mkdir()
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", COMMIT], check=True, stdout=subprocess.PIPE
    ).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", f"--wheel-dir={directory}", source]
    subprocess.run([*pip, *build], check=True, timeout=300)
    [wheel] = directory.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", wheel], check=True)
    return site


@pytest.mark.slow
def test_a_workdir_of_the_wheel_before_is_resumed_and_evaluated(tmp_path):
    site = install_before(tmp_path)

    def run(package, *words):
        done = subprocess.run(
            [sys.executable, "-m", "deeplab_jax.cli.main", *words],
            env=os.environ | {"PYTHONPATH": str(package)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    write_recipe(tmp_path / "then.py", SAME | THEN)
    write_recipe(tmp_path / "now.py", SAME | NOW)
    run(site, "prepare", "shapes", "--data_dir=data", "--num_train=8", "--num_val=2")
    run(site, "train", "--config=then.py", "--workdir=run")
    config = tmp_path / "run" / "config.json"
    assert json.loads(config.read_text())["loss"]["resolution"] == "scores"
    # What is left is a run that was stopped after two of three steps.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3")
    before = json.loads(config.read_text())["model"]
    run(ROOT, "train", "--config=now.py", "--workdir=run")
    after = json.loads(config.read_text())
    assert after["loss"]["upsample_logits"] is False
    assert after["model"]["atrous_rates"] == before["atrous_rates"]
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(row.get("step", 0) for row in rows) == 3
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()
    words = ["--model=run", "--dataset=shapes", "--split=val", "--data_dir=data", "--output=out"]
    run(ROOT, "evaluate", *words)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_images"] == 2
