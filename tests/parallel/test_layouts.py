"""Every layout of devices trains the same parameters as one device."""

import pytest
from layouts import Task, difference, run_tasks

# 49 rows, and 25, 13, 7 of the maps, divide over none of them.
LAYOUTS = {"8×1": (8, 1), "4×2": (4, 2), "2×4": (2, 4)}


# test_communication.py trains a toy network on every layout; test_mesh.py stays quick.
@pytest.mark.slow
def test_rows_and_parameters_in_parts(tmp_path):
    """Image rows are sharded over two of four devices, and kernels over all."""
    tasks = [Task(), Task(data=2, spatial=2, fsdp=True)]
    one, parts = run_tasks(tasks, tmp_path, devices=4, optimization_level=0)
    assert difference(parts, one) <= 1e-9
    assert parts["halo_exchanges"] > 0
    assert (one["halo_exchanges"], one["all_reduces"], one["all_gathers"]) == (0, 0, 0)
    # Half of the kernels and of their momentum.
    assert parts["argument_bytes"] < 0.6 * one["argument_bytes"]


@pytest.fixture(scope="module")
def tasks():
    """In float64 and float32, of ResNet-50 at output stride 16."""

    def make(data, spatial):
        of = {"backbone": "resnet_50", "data": data, "spatial": spatial, "crop": (49, 17)}
        return [Task(**of, num_steps=20), Task(**of, num_steps=10, dtype="float32")]

    return make


@pytest.fixture(scope="module")
def one_device(tasks, tmp_path_factory):
    return run_tasks(tasks(1, 1), tmp_path_factory.mktemp("one"), devices=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
# Every layout and every number of processes; rows of an image within and across processes.
@pytest.mark.parametrize(("layout", "processes"), [("8×1", 1), ("2×4", 1), ("4×2", 2), ("2×4", 4)])
def test_resnet_50_on_eight_devices(one_device, tasks, tmp_path, layout, processes):
    found = run_tasks(
        tasks(*LAYOUTS[layout]), tmp_path, devices=8 // processes, processes=processes
    )
    exact, single = found
    off = difference(exact, one_device[0])
    losses = abs(single["losses"] - one_device[1]["losses"])
    print(f"\n{layout}, {processes} processes: ‖a−b‖/‖b‖ {off:.1e} in float64 after 20 steps; ")
    print(
        f"float32 losses off by {losses[:5].max():.1e} at steps 1–5, {losses[5:].max():.1e} later"
    )
    print(f"{exact['halo_exchanges']} halo exchanges, {exact['seconds']:.0f} s")
    assert off <= 1e-9
    assert losses[:5].max() <= 1e-3
