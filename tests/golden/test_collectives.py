"""What the devices of a training step send each other, by kind."""

import json

import pytest
from golden.recording import recorded
from layouts import Task, run_tasks

LAYOUTS = {
    "data=8": Task(data=8, num_steps=1),
    "data=4,space=2": Task(data=4, spatial=2, num_steps=1),
    "data=8,fsdp": Task(data=8, fsdp=True, num_steps=1),
}


@pytest.mark.slow
def test_collectives_of_a_step_on_eight_devices(tmp_path):
    results = run_tasks(list(LAYOUTS.values()), tmp_path, devices=8, optimization_level=0)
    found = {
        name: json.loads(str(result["collectives"]))
        for name, result in zip(LAYOUTS, results, strict=True)
    }
    assert recorded("collectives.json", found) == found
