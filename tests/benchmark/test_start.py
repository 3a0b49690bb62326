"""The way to the first step: each part is told, and the second process reads the cache."""

import json

import pytest

from deeplab_jax.benchmark import start
from deeplab_jax.benchmark.networks import split_network
from deeplab_jax.cli.benchmark import BENCHMARKS, OPTIONS
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

PARTS = ("imports", "devices_and_data", "initialization", "tracing", "lowering")
PARTS += ("compiling_or_reading", "first_step")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("deeplab_v3/resnet_101", ("deeplab_v3", {"backbone": "resnet_101"})),
        ("deeplab_v3plus", ("deeplab_v3plus", {})),
        ("torchvision/deeplabv3_resnet50", ("torchvision/deeplabv3_resnet50", {})),
        ("deeplab_v3plus/timm/resnet34", ("deeplab_v3plus", {"backbone": "timm/resnet34"})),
    ],
)
def test_networks_have_short_names(name, found):
    assert split_network(name) == found


def test_failures_are_reported():
    with pytest.raises(DeepLabError, match="No module named"):
        start.run_python(["-c", "import no_such_module"], {})


def test_notes_of_jax_do_not_hide_the_error():
    code = "error = RuntimeError('no memory'); error.add_note('For simplicity'); raise error"
    with pytest.raises(DeepLabError, match=r"failed: RuntimeError: no memory$"):
        start.run_python(["-c", code], {})


def test_a_signal_is_reported():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(DeepLabError, match="failed: signal 9 ended the process"):
        start.run_python(["-c", code], {})


def test_mistakes_are_reported(capsys):
    assert run(["benchmark", "compile", "--network=deeplab_v3/resnet_11"], Console()) == 2
    assert "resnet_101" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compile", "--size=129x129"], "--size does not apply to benchmark compile; flags for "),
        (["inference", "--sizes=65x65"], "--size, --batch_size, --dtype, --engines"),
        (["start", "--network=deeplab_v3"], "--network does not apply to benchmark start"),
    ],
)
def test_flags_of_other_benchmarks_are_refused(capsys, words, message):
    assert run(["benchmark", *words], Console()) == 2
    assert message in capsys.readouterr().err


def test_every_benchmark_names_its_flags():
    assert OPTIONS.keys() == BENCHMARKS.keys()


def test_an_unexpected_exit_status_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "STARTS", {"import": (["-c", "import no_such_module"], 0)})
    with pytest.raises(DeepLabError, match="No module named"):
        start.measure_commands(1, Reporter())


PREPARED_ON_TWO_DEVICES = """
import time
from deeplab_jax.benchmark import first_step
from deeplab_jax.training import setup

def stop(run, first):
    print(run.mesh.size)
    raise SystemExit

setup.run_batches = stop
first_step.measure("deeplab_v3/mobilenet_v2", (33, 33), 3, "float32", time.time())
"""


def test_the_first_step_runs_on_one_of_several_devices():
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    assert start.run_python(["-c", PREPARED_ON_TWO_DEVICES], two_devices) == "1\n"


@pytest.mark.slow
def test_this_process_does_not_take_the_devices_of_the_timed_commands():
    lines = (
        "from deeplab_jax.benchmark import start",
        "from deeplab_jax.parallel.private_jax import backends_are_initialized",
        "from deeplab_jax.reporter import Reporter",
        "start.measure_commands(0, Reporter())",
        "print(backends_are_initialized())",
    )
    assert start.run_python(["-c", "; ".join(lines)], {}) == "False\n"


@pytest.mark.slow
def test_a_warm_start_is_faster_than_a_cold_one(capsys):
    assert run(["benchmark", "start", "--repetitions=1", "--json"], Console()) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {f"{name}_seconds" for name in start.STARTS} <= set(figures)
    assert figures["first_mask_seconds"] < figures["first_mask_cold_seconds"]


@pytest.mark.slow
def test_parts_add_up_and_the_cache_saves_compilation(capsys):
    network = "--network=deeplab_v3/mobilenet_v2"
    arguments = [network, "--crop=33x33", "--batch_size=2", "--json"]
    assert run(["benchmark", "compile", *arguments], Console()) == 0
    figures = json.loads(capsys.readouterr().out)
    for process in ("cold", "warm"):
        parts = [figures[f"{process}_{name}_seconds"] for name in PARTS]
        assert sum(parts) == pytest.approx(figures[f"{process}_seconds"], rel=0.05)
    cold, warm = (figures[f"{name}_compiling_or_reading_seconds"] for name in ("cold", "warm"))
    assert warm < cold
    assert figures["cold_loss"] == figures["warm_loss"]
