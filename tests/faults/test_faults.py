"""A small part of the fault suite; `make faults` runs all of it."""

import shutil
import signal

import pytest
from bucket_server import BUCKET, bucket_server
from damages import DAMAGES
from disks import damage_files, full_disk
from goodput_run import goodput_of_killed_run
from hostile_images import spoilt_images
from kills import kill_in_bucket, kill_runs
from processes import (
    absent_host,
    disagreeing_hosts,
    killed_worker,
    lonely_host,
    lost_host,
    other_data,
    second_run,
    stopped_validation,
    stopped_worker,
    unwritable_checkpoints,
)
from stops import stop_run
from tiny_run import TinyRuns, reached_step

from deeplab_jax.checkpointing.saved_states import saved_steps
from deeplab_jax.files import as_path

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return TinyRuns.prepare(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(runs):
    runs.finish(runs.start(*runs.train_words(runs.folder / "undisturbed")))
    return runs.folder / "undisturbed"


@pytest.fixture
def heard():
    return []


def test_kills_cost_at_most_an_interval_and_no_bit(runs, heard):
    tally = kill_runs(runs, 4, 0, heard.append)
    assert tally.kills.total() == 4
    assert not tally.failures, heard


def test_kills_of_a_run_in_a_bucket_cost_no_bit(runs, heard, monkeypatch):
    # By default etils takes TensorFlow's file systems where TensorFlow happens to be installed.
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    with bucket_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        tally = kill_in_bucket(runs, as_path(f"gs://{BUCKET}/test"), 2, 0, heard.append)
    assert tally.kills == {"commit": 1, "save": 1}
    assert not tally.failures, heard


def test_the_goodput_of_a_killed_run_is_in_its_log(runs, heard):
    found, equal = goodput_of_killed_run(
        runs, 40, 1, 0, heard.append, str(runs.folder / "tiny.py"), ()
    )
    assert equal
    assert found.starts == 2
    assert 0 < found.fraction < 1


def test_sigterm_loses_nothing(runs, undisturbed, heard):
    tally = stop_run(runs, undisturbed, 2, 0, heard.append)
    assert (tally.asked, tally.lost, tally.wrong) == (2, 0, [])


def test_damage_of_any_file_is_found_or_harmless(runs, undisturbed):
    tally = damage_files(runs, undisturbed, 0)
    assert tally.missed == []
    assert tally.found >= (tally.files - 1) * len(DAMAGES)


def test_a_run_resumes_from_the_checkpoint_before_the_damaged_one(runs, undisturbed):
    workdir = shutil.copytree(undisturbed, runs.folder / "set_aside")
    before, newest = saved_steps(workdir)[-2:]
    DAMAGES["delete"](workdir / "checkpoints" / str(newest) / "optimizer" / "_METADATA", None)
    said = runs.finish(runs.start(*runs.train_words(workdir)))
    assert f"the checkpoint of step {newest} is damaged (optimizer/_METADATA is missing)" in said
    assert f"resuming from step {before} " in said
    assert reached_step(workdir) == newest
    assert (workdir / "damaged_checkpoints" / str(newest)).is_dir()


def test_a_full_disk_keeps_the_last_checkpoint(runs, undisturbed):
    try:
        rows = full_disk(runs, undisturbed)
    except PermissionError as error:
        pytest.skip(str(error))
    assert [value for _, value in rows] == [2, True, True, True]


def test_a_killed_data_worker_ends_the_run(runs):
    assert killed_worker(runs).good


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_stalled_host_ends_the_job(runs, number):
    end = lost_host(runs, number, "lost")
    assert end.good, end


def test_a_host_that_never_starts_is_reported(runs):
    end = absent_host(runs)
    assert end.good, end


def test_a_stopped_data_worker_ends_the_run_with_its_stacks(runs):
    end = stopped_worker(runs)
    assert end.good, end
    assert "no progress for 20 s while reading the batch" in end.message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (second_run, "is in use by process"),
        (disagreeing_hosts, "schedule.base_learning_rate is 0.02 instead of 0.01"),
        (other_data, "val"),
        (lonely_host, "JOB_COMPLETION_INDEX=1 indicates a job of several processes"),
        (unwritable_checkpoints, "checkpoints cannot be written (File exists)"),
    ],
)
def test_processes_that_must_not_train_are_refused(runs, fault, words):
    end = fault(runs)
    assert end.good, end
    assert words in end.message


def test_a_signal_during_a_validation_saves_the_step_and_ends_the_run(runs):
    end = stopped_validation(runs)
    assert (end.status, end.good) == (130, True), end


def test_spoilt_images_are_refused_by_name(tmp_path, heard):
    tally = spoilt_images(tmp_path, 120, 3, heard.append)
    assert tally.wrong == []
    assert tally.refused > 30
    assert tally.read > 20
