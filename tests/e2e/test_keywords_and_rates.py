"""Keywords and rates through the real commands, on new workdirs and on one written before."""

import json
import pathlib
import shutil

import pytest

from deeplab_jax.checkpointing.saved_states import saved_steps
from deeplab_jax.formats import FORMAT_VERSION

BEFORE = pathlib.Path(__file__).parents[1] / "checkpointing/written_before"
THEN, NOW = [6, 12, 18, 24], [3, 6, 9, 12]


# tests/checkpointing/test_written_before.py reads the same files.
@pytest.mark.slow
def test_a_workdir_written_before_resumes_with_its_own_network(commands, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(BEFORE / "v2/workdir", workdir)
    words = [
        "train",
        f"--config={BEFORE / 'recipe.py'}",
        f"--config.data.data_dir={commands.data_dir}",
    ]
    refused = commands.run(
        *words, f"--workdir={workdir}", "--config.model.atrous_rates=3,6,9,12", status=2
    )
    assert "model.atrous_rates: (6, 12, 18, 24) → (3, 6, 9, 12)" in refused.stderr
    assert saved_steps(workdir) == [2]
    commands.run(*words, f"--workdir={workdir}")
    assert saved_steps(workdir) == [2, 3]
    config = json.loads((workdir / "config.json").read_text())
    model = json.loads((workdir / "model.json").read_text())
    assert (config["model"]["atrous_rates"], config["format_version"]) == (THEN, 1)
    assert (model["overrides"]["atrous_rates"], model["format_version"]) == (THEN, FORMAT_VERSION)
    # A new run is told of the keywords that changed nothing.
    refused = commands.run(*words, f"--workdir={tmp_path / 'new'}", status=2)
    assert "separable=True" in refused.stderr
    assert "low_level_channels=24" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_inspect_refuses_and_follows_the_stride(commands):
    refused = commands.run_here("inspect", "deeplab_v2", "--set=separable=True", status=2)
    assert "separable=True" in refused.stderr
    assert "legal here: False" in refused.stderr
    refused = commands.run_here("inspect", "deeplab_v2", "--set=output_stride=32", status=2)
    assert "legal output strides: 4, 8, 16" in refused.stderr
    words = ["inspect", "deeplab_v2", "--backbone=mobilenet_v2", "--json", "--size=65x65"]
    made = commands.run(*words, "--set=output_stride=16,image_pooling=none")
    layers = {layer["name"]: layer for layer in json.loads(made.stdout)["layers"]}
    found = {name for name in layers if name.startswith("aspp/")}
    assert found == {f"aspp/rate_{rate}" for rate in NOW}
