import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import threading
import time

import jax
import pytest
from memory_bucket import use_memory_bucket
from outage import ERRORS

from deeplab_jax import config as configs
from deeplab_jax.checkpointing.saved_states import (
    checkpoint_damage,
    newest_good_step,
    remove_unfinished,
    saved_steps,
    set_damaged_aside,
    uncommit,
)
from deeplab_jax.checkpointing.saved_states import write_manifest as write_files
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, replacing_directory
from deeplab_jax.parallel import make_mesh
from deeplab_jax.training import train, writers
from deeplab_jax.training import workdir as workdirs
from deeplab_jax.training.workdir import claim, write_manifest
from deeplab_jax.training.writers import Monitor, RowFile, read_rows


def changed(**fields):
    config = configs.default()
    for field, text in fields.items():
        configs.override(config, field.replace("__", "."), text)
    return config


def claim_and_log(workdir, *arguments, **keywords):
    """Claims a workdir as a run that has logged a row."""
    claim(workdir, *arguments, **keywords)
    with Monitor(workdir, 0, writers=()) as monitor:
        monitor.write(1, {"loss": 1.0})


def test_a_new_workdir_holds_the_config(tmp_path):
    workdir = tmp_path / "a" / "b"
    claim(workdir, changed(seed="3"))
    assert configs.from_json((workdir / "config.json").read_text()).seed == 3


def test_the_same_config_resumes_with_moved_data(tmp_path):
    claim(tmp_path, changed(augmentation__crop_size="65,97"))
    claim(tmp_path, changed(augmentation__crop_size="65,97", data__data_dir="elsewhere"))
    assert json.loads((tmp_path / "config.json").read_text())["data"]["data_dir"] == "elsewhere"


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    claim_and_log(tmp_path, changed())
    before = (tmp_path / "config.json").read_bytes()
    message = r"\(seed: 0 → 4; training.num_steps: 30000 → 5\); use another --workdir"
    with pytest.raises(DeepLabError, match=message):
        claim(tmp_path, changed(seed="4", training__num_steps="5"))
    assert (tmp_path / "config.json").read_bytes() == before


FACTS = {"name": "a", "split": "train", "num_images": 3, "class_names": ["x"], "content": "00"}


@pytest.mark.parametrize("result", ["metrics.jsonl", "checkpoints/7", "fold_2/metrics.jsonl"])
def test_a_run_that_failed_before_any_result_is_replaced(tmp_path, result):
    claim(tmp_path, changed(), {"train": FACTS}, {"sparsity": 0.5})
    claim(tmp_path, changed(seed="4"), {"whole": FACTS | {"content": "01"}})
    assert configs.from_json((tmp_path / "config.json").read_text()).seed == 4
    assert list(json.loads((tmp_path / "data.json").read_text())) == ["whole"]
    assert not (tmp_path / "adjustments.json").exists()
    if result.endswith("jsonl"):
        (tmp_path / result).parent.mkdir(exist_ok=True)
        (tmp_path / result).write_text('{"step": 1, "loss": 1.0}\n')
    else:
        (tmp_path / result).mkdir(parents=True)
    with pytest.raises(DeepLabError, match="seed: 4 → 5"):
        claim(tmp_path, changed(seed="5"))


def test_other_data_are_refused_with_what_differs_and_nothing_is_written(tmp_path):
    claim_and_log(tmp_path, changed(), {"train": FACTS, "validation": FACTS})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = {"train": FACTS, "validation": FACTS | {"num_images": 4, "content": "01"}}
    with pytest.raises(DeepLabError, match=r"\(validation num_images: 3 → 4\).*data\.json"):
        claim(tmp_path, changed(data__data_dir="elsewhere"), other)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    claim(tmp_path, changed(data__data_dir="elsewhere"), {"train": FACTS, "validation": FACTS})


@pytest.mark.parametrize(
    ("roles", "others", "owner"),
    [
        (("train", "validation"), ("whole",), "a single run"),
        (("whole",), ("train", "validation"), "a cross-validation"),
    ],
)
def test_a_run_and_a_cross_validation_do_not_share_a_workdir(tmp_path, roles, others, owner):
    claim_and_log(tmp_path, changed(), dict.fromkeys(roles, FACTS))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DeepLabError, match=f"contains {owner} .*give another --workdir"):
        claim(tmp_path, changed(), dict.fromkeys(others, FACTS))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_workdir_without_recorded_data_accepts_and_records_them(tmp_path):
    claim_and_log(tmp_path, changed())
    claim(tmp_path, changed(), {"train": FACTS})
    with pytest.raises(DeepLabError, match="train content"):
        claim(tmp_path, changed(), {"train": FACTS | {"content": "01"}})


def test_other_adjustments_are_refused_with_what_differs_and_nothing_is_written(tmp_path):
    claim_and_log(tmp_path, changed(), adjustments={"sparsity": 0.5, "teacher": "1f"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = r"other settings \(sparsity: 0\.5 → 0\.9; teacher: 1f → None\); use the same settings"
    with pytest.raises(DeepLabError, match=message):
        claim(tmp_path, changed(data__data_dir="elsewhere"), adjustments={"sparsity": 0.9})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    claim(tmp_path, changed(), adjustments={"sparsity": 0.5, "teacher": "1f"})


def test_a_run_without_adjustments_is_not_resumed_with_adjustments(tmp_path):
    claim_and_log(tmp_path, changed())
    with pytest.raises(DeepLabError, match=r"sparsity: None → 0\.5"):
        claim(tmp_path, changed(), adjustments={"sparsity": 0.5})
    claim(tmp_path, changed())


@pytest.mark.parametrize("content", ["{", "3", "[1]"])
def test_recorded_adjustments_that_cannot_be_read_are_named(tmp_path, content):
    claim_and_log(tmp_path, changed())
    (tmp_path / "adjustments.json").write_text(content)
    with pytest.raises(DeepLabError, match=r"adjustments\.json cannot be read"):
        claim(tmp_path, changed())


@pytest.mark.parametrize("content", ["{", "3", '{"train": 3}'])
def test_recorded_data_that_cannot_be_read_are_named(tmp_path, content):
    claim_and_log(tmp_path, changed())
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DeepLabError, match=r"data\.json, .*cannot be read.*delete it"):
        claim(tmp_path, changed(), {"train": FACTS})


@pytest.mark.parametrize("content", ["{", '{"unknown": 1}', "3"])
def test_a_config_that_cannot_be_read_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DeepLabError, match=r"config\.json") as caught:
        claim(tmp_path, changed())
    assert "\n" not in str(caught.value)


def test_the_manifest_lists_every_start(tmp_path):
    mesh = make_mesh(jax.devices()[:1])
    for _ in range(2):
        write_manifest(tmp_path, mesh)
    starts = json.loads((tmp_path / "manifest.json").read_text())
    assert len(starts) == 2
    assert starts[0]["versions"]["jax"] == jax.__version__
    assert starts[0]["mesh"] == {"data": 1, "spatial": 1}


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("[{")
    with pytest.raises(DeepLabError, match=r"manifest\.json, which lists the starts.*delete it"):
        write_manifest(tmp_path, make_mesh(jax.devices()[:1]))


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_another_project_is_not_that_of_the_code(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", tmp_path, *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "--message=project")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "workdir.py").write_text("")
    monkeypatch.setattr(workdirs, "__file__", str(tmp_path / ".venv" / "workdir.py"))
    assert workdirs._commit() is None
    git("add", "--force", ".venv/workdir.py")
    git("commit", "--message=code")
    assert workdirs._commit() == git("rev-parse", "HEAD")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(workdirs, "PACKAGES", ("jax", "package-that-is-not-installed"))
    expected = {"jax": importlib.metadata.version("jax"), "package-that-is-not-installed": None}
    assert workdirs.versions() == expected


@pytest.fixture
def bucket(monkeypatch):
    """A workdir in an in-memory bucket."""
    use_memory_bucket(monkeypatch)
    return as_path("s3://bucket/run")


def test_a_workdir_may_be_in_a_bucket(bucket):
    for _ in range(2):
        claim(bucket, changed())
        write_manifest(bucket, make_mesh(jax.devices()[:1]))
    assert len(json.loads((bucket / "manifest.json").read_text())) == 2
    with Monitor(bucket, 0) as monitor:
        for step in (1, 2, 3):
            monitor.write(step, {"loss": step / 2})
    with Monitor(bucket, 2) as monitor:
        monitor.write(3, {"loss": 9.0})
    with pytest.raises(DeepLabError, match="s3://bucket/run has a run with another config"):
        claim(bucket, changed(seed="4"))
    assert [row["loss"] for row in read_rows(bucket)] == [0.5, 1.0, 9.0]


class Outage:
    """Outage of the bucket, during which no row is stored."""

    def __init__(self, monkeypatch, error):
        self.store, self.error, self.refused = RowFile.flush, error, threading.Event()
        monkeypatch.setattr(RowFile, "flush", lambda rows: self.flush(rows))
        monkeypatch.setattr(writers, "BUCKET_SECONDS", 0.02)

    def flush(self, rows):
        if self.error is None:
            self.store(rows)
            return
        self.refused.set()
        raise self.error


@pytest.mark.parametrize("error", ERRORS)
def test_rows_are_stored_in_a_bucket_after_an_outage(bucket, monkeypatch, error):
    outage = Outage(monkeypatch, error)
    with Monitor(bucket, 0, ()) as monitor:
        monitor.write(1, {"loss": 0.5})
        assert outage.refused.wait(20)
        outage.error = None
        ends = time.monotonic() + 20
        while not read_rows(bucket):
            assert time.monotonic() < ends
            time.sleep(0.02)


@pytest.mark.parametrize("error", ERRORS)
def test_the_error_of_a_run_is_raised_during_an_outage(bucket, monkeypatch, error):
    Outage(monkeypatch, error)
    with pytest.raises(DeepLabError, match="the loss became NaN"), Monitor(bucket, 0, ()):
        raise DeepLabError("the loss became NaN")


def checkpoint(workdir, step):
    """Writes a finished checkpoint that consists of one file."""
    path = workdir / "checkpoints" / str(step)
    (path / "variables").mkdir(parents=True)
    (path / "variables" / "data").write_bytes(bytes(range(99)))
    write_files(path)
    (path / "commit_success.txt").write_text("")
    return path


def test_damage_is_found_in_a_bucket_too(bucket):
    path = checkpoint(bucket, 4)
    assert saved_steps(bucket) == [4]
    assert checkpoint_damage(bucket, 4) is None
    (path / "variables" / "data").write_bytes(bytes(99))
    assert checkpoint_damage(bucket, 4) == "variables/data has a wrong checksum"


def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(bucket):
    checkpoint(bucket, 4)
    (checkpoint(bucket, 8) / "variables" / "data").write_bytes(bytes(99))
    assert newest_good_step(bucket) == 4
    heard = []
    set_damaged_aside(bucket, heard.append)
    assert len(heard) == 1
    assert saved_steps(bucket) == [4]
    assert (bucket / "damaged_checkpoints" / "8" / "variables" / "data").read_bytes() == bytes(99)


@pytest.mark.parametrize("before", [(), (4,)])
def test_an_unfinished_checkpoint_in_a_bucket_is_ignored_and_removed(bucket, before):
    for step in before:
        checkpoint(bucket, step)
    uncommit(checkpoint(bucket, 8))
    assert saved_steps(bucket) == list(before)
    heard = []
    remove_unfinished(bucket, heard.append)
    set_damaged_aside(bucket, heard.append)
    assert heard == ["the unfinished checkpoint of step 8 was removed"]
    assert not (bucket / "checkpoints" / "8").exists()
    assert saved_steps(bucket) == list(before)


def test_rows_in_a_bucket_are_stored_before_a_checkpoint(bucket):
    with Monitor(bucket, 0) as monitor:
        monitor.write(1, {"loss": 1.0})
        assert read_rows(bucket) == []
        monitor.flush()
        assert [row["step"] for row in read_rows(bucket)] == [1]


def test_a_directory_in_a_bucket_appears_only_if_the_block_succeeds(bucket):
    with contextlib.suppress(ValueError), replacing_directory(bucket / "a") as temporary:
        (temporary / "model.json").write_text("{}")
        raise ValueError
    assert not (bucket / "a").exists()
    with replacing_directory(bucket / "a") as temporary:
        (temporary / "variables").mkdir()
        (temporary / "variables" / "data").write_text("1")
        (temporary / "model.json").write_text("{}")
    assert (bucket / "a" / "model.json").read_text() == "{}"
    assert (bucket / "a" / "variables" / "data").read_text() == "1"


def test_buckets_that_do_not_work_are_refused_in_one_line():
    with pytest.raises(DeepLabError, match="s3://bucket/run cannot be a workdir: S3 cannot rename"):
        train(changed(), "s3://bucket/run")
    with pytest.raises(DeepLabError, match="unknown kind of bucket ftp://; expected a local path"):
        as_path("ftp://bucket/run")


def test_a_file_is_refused_as_workdir(tmp_path):
    file = tmp_path / "run"
    file.touch()
    with pytest.raises(DeepLabError, match="run is a file; give a directory"):
        train(changed(), file)
