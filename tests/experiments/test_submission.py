"""Jobs as local processes of submitit: what they return, and how a failed one is told."""

import contextlib
import os

import pytest

from deeplab_jax.errors import DeepLabError
from experiments import submission
from experiments.batch import run_share
from experiments.storage import Storage
from experiments.submission import gpu_environments, make_executor, submit_together, wait_for

pytest.importorskip("submitit")


def test_local_processes_return_their_failures(tmp_path):
    executor = make_executor("local", tmp_path, ["timeout_min=1"])
    with executor.batch():
        jobs = [executor.submit(list, ("row 3: no data",)), executor.submit(int, "no number")]
    first, second = wait_for(jobs)
    assert first == "row 3: no data"
    assert second.startswith(f"job {jobs[1].job_id}: ")
    assert "no number" in second


def test_settings_that_submitit_does_not_know(tmp_path):
    with pytest.raises(DeepLabError, match=r"submitit does not accept --submit=local.*partitoin"):
        make_executor("local", tmp_path, ["partitoin=gpu"])


@pytest.mark.parametrize("setting", ["timeout_min=short", "nodes=2"])
def test_values_that_submitit_does_not_accept(setting, tmp_path):
    with pytest.raises(DeepLabError, match="submitit does not accept --submit=local"):
        make_executor("local", tmp_path, [setting])


def test_jobs_that_the_cluster_refuses(tmp_path):
    from submitit.core.utils import FailedJobError

    class Refusing:
        @contextlib.contextmanager
        def batch(self):
            yield
            raise FailedJobError("sbatch: error: invalid partition specified: gpus")

        def submit(self, call):
            return call

    with pytest.raises(DeepLabError, match="invalid partition specified: gpus; correct"):
        submit_together(Refusing(), [list])
    assert submit_together(Refusing(), []) == []


def test_gpus_are_divided_among_local_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in gpu_environments(2)] == ["4,6", "5"]
    shared = gpu_environments(4)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shared] == ["4", "5", "6", "4"]
    assert shared[0]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    # submitit sets this variable to an empty text, unless `gpus_per_node` is given.
    for given, used in (("", "4,6"), ("0", "0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        run_share((), Storage(tmp_path), "data", gpus={"CUDA_VISIBLE_DEVICES": "4,6"})
        assert os.environ["CUDA_VISIBLE_DEVICES"] == used


def test_a_machine_without_gpus_sets_no_environment(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(submission.shutil, "which", lambda _: None)
    assert gpu_environments(2) == [{}, {}]
