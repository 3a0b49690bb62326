"""The table own/few_labels trains, labels and trains again."""

import json
import pathlib
import subprocess
import sys

import pytest

from deeplab_jax.data import open_dataset
from experiments.cases import make_cases
from experiments.catalog import find_table
from experiments.presets import PRESETS

ROOT = pathlib.Path(__file__).parents[2]
TABLE = find_table("own/few_labels")


def test_rows_keep_their_splits_and_share_the_teacher():
    quarter, half, taught = make_cases(TABLE, PRESETS["camvid"], init="init")
    splits = [case.training.config.data.train_split for case in (quarter, half, taught)]
    assert splits == ["train[:25%]", "train[:50%]", "train[:25%]"]
    assert taught.training.unlabeled == "train[25%:]"
    assert taught.training.teacher == quarter.training
    assert taught.training.teacher.key == quarter.training.key
    assert len({case.training.key for case in (quarter, half, taught)}) == 3
    # Other tables train on the whole split of the preset.
    (first, *_) = make_cases(find_table("v3/table5"), PRESETS["camvid"])
    assert first.training.config.data.train_split == "train"


@pytest.mark.slow
def test_the_table_runs_at_toy_size(tmp_path):
    data_dir = tmp_path / "data"
    prepare = [sys.executable, "-m", "deeplab_jax.cli.main", "prepare", "shapes"]
    words = (f"--data_dir={data_dir}", "--num_train=16", "--num_val=12", "--size=64")
    subprocess.run([*prepare, *words], check=True, capture_output=True, cwd=ROOT)
    command = [
        *(sys.executable, "-m", "experiments.run", "own/few_labels", "--preset=smoke"),
        *(f"--workdir={tmp_path}", f"--data_dir={data_dir}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = tmp_path.glob("smoke/trainings/*/seed_0.pseudo")
    train, val = (open_dataset("folder", folder, split) for split in ("train", "val"))
    # A quarter of 16 images is labeled, the others have pseudo-labels.
    names = [train[index]["image_id"] for index in range(len(train))]
    assert [name.partition("/")[0] for name in names].count("labeled") == 4
    assert [name.partition("/")[0] for name in names].count("pseudo") == 12
    assert len(val) == 12
    results = [json.loads(path.read_text()) for path in tmp_path.glob("smoke/results/*/*/*.json")]
    assert len(results) == 3
    assert {one["settings"]["dataset"] for one in results} == {"shapes"}
