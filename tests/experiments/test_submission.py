"""Jobs as local processes of submitit: what they return, and how a failed one is told."""

import pytest

from deeplab_jax.errors import DeepLabError
from experiments.submission import make_executor, wait_for

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
