"""The suite for GPUs: rows that survive a cut, kinds of kernels, and every part at toy size."""

import functools
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deeplab_jax.errors import DeepLabError
from experiments.gpu_suite import __main__ as command
from experiments.gpu_suite import ahead, operations, profile, rows, wheels
from experiments.gpu_suite.rows import Measurement

ROOT = Path(__file__).parents[2]


def suite(*arguments):
    """Runs the suite's command and returns its result."""
    command = [sys.executable, "-m", "experiments.gpu_suite", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def toy(output, part):
    """Returns the rows, without those that tell of a start, of a part at toy size."""
    done = suite(f"--part={part}", f"--output={output}", "--toy")
    assert done.returncode == 0, done.stderr
    found = [row for row in rows.read(output / f"{part}.jsonl") if row["status"] != "started"]
    for row in found:
        assert row["machine"]["devices"], row
        assert row["machine"]["versions"]["jax"], row
        assert "card" in row["machine"], row
    return found


def statuses(path):
    return [(row["settings"]["n"], row["status"]) for row in rows.read(path)]


def test_a_tilde_in_a_flag_is_the_home_directory(tmp_path, monkeypatch):
    given = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(command, "bounded", lambda part, arguments: given.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["gpu_suite", "--output=~/results", "--camvid=~/camvid"])
    assert command.main() == 0
    assert (tmp_path / "results").is_dir()
    assert given[0].output == tmp_path / "results"
    assert given[0].camvid == tmp_path / "camvid"


def measurement(number, calls, error=None):
    def run():
        calls.append(number)
        if error:
            raise error
        return {"value": number}

    return Measurement({"n": number}, run)


def test_a_second_call_runs_missing_then_failed_measurements(tmp_path):
    path, calls = tmp_path / "new" / "x.jsonl", []
    make = functools.partial(measurement, calls=calls)
    first = [
        make(0, error=RuntimeError("no memory")),
        make(1),
        make(2, error=DeepLabError("torch")),
    ]
    rows.run_part(path, first, {}, math.inf)
    assert statuses(path)[1::2] == [(0, "failed"), (1, "measured"), (2, "skipped")]
    assert [row.get("reason") for row in rows.read(path)[1::2]] == [
        "RuntimeError: no memory",
        None,
        "torch",
    ]
    calls.clear()
    rows.run_part(path, [*(make(n) for n in range(4))], {}, math.inf)
    assert calls == [3, 0, 2]


def test_unfinished_measurements_and_lines_are_ignored(tmp_path):
    path, calls = tmp_path / "x.jsonl", []
    rows.append(path, {"settings": {"n": 0}, "status": "started"})
    whole = path.read_text()
    path.write_text(whole + '{"settings": {"n": 1}, "sta')
    both = [measurement(n, calls) for n in range(2)]
    rows.run_part(path, both, {}, math.inf)
    assert calls == [1, 0]
    assert path.read_text().startswith(whole)
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()][-1] == "measured"


def test_nothing_starts_after_the_deadline(tmp_path, capsys):
    calls = []
    rows.run_part(tmp_path / "x.jsonl", [measurement(0, calls)], {}, deadline=0.0)
    assert not calls
    assert "--output" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm80_xmma_fprop_implicit_gemm_indexed_bf16bf16_128x32x32", "convolution"),
        ("sm90_xmma_wgrad_implicit_gemm_indexed_bf16", "convolution, gradient of kernel"),
        ("sm90_xmma_dgrad_implicit_gemm_indexed_bf16", "convolution, gradient of inputs"),
        ("nvjet_tst_256x128_64x4_2x1_v_bz_TNT", "matrix product"),
        ("loop_convert_fusion_3", "fusion"),
        ("input_transpose_fusion", "transpose"),
        ("MemcpyD2D", "copy"),
        ("input_reduce_fusion_12", "reduction"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<float>", "transpose"),
        ("something_else", "other"),
    ],
)
def test_kernels_have_kinds(kernel, kind):
    assert profile.kind_of(kernel) == kind


def test_a_profile_sums_by_kind_and_run():
    found = profile.summarize([("gemm", 4.0), ("gemm", 2.0), ("copy", 1.0)], runs=2)
    assert found["milliseconds_by_kind"] == {"matrix product": 3.0, "copy": 0.5}
    assert found["kernels"][0]["calls"] == 2


def test_wheels_lists_the_missing_packages(monkeypatch):
    monkeypatch.setattr(wheels, "PACKAGES", {"numpy": "numpy", "a": "absent_a", "b": "absent_b.c"})
    assert wheels.missing_packages() == ["a", "b"]


def test_wheels_requires_no_package():
    # -S leaves out the installed packages, and -E the variables that could add them.
    line = [sys.executable, "-S", "-E", "-m", "experiments.gpu_suite", "--wheels"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "jax" in done.stdout.splitlines()


def test_the_command_names_what_is_wrong(tmp_path):
    done = suite("--part=a,z", f"--output={tmp_path}")
    assert done.returncode == 2
    assert "a, b, c, d, e, f" in done.stderr
    assert suite("--part=a").returncode == 2


def test_a_part_ends_with_its_time(tmp_path):
    done = suite("--part=b", f"--output={tmp_path}", "--toy", "--seconds=20.5")
    assert done.returncode == 1
    assert "time limit reached" in done.stdout


def test_a_child_process_may_save_after_its_part_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "GRACE", 5)
    saving = "trap 'sleep 0.5; touch saved; exit' TERM; touch ready; while :; do sleep 0.05; done"
    part = subprocess.Popen(
        ["bash", "-c", f"({saving}) & wait"], cwd=tmp_path, start_new_session=True
    )
    part.is_alive = lambda: part.poll() is None
    while not (tmp_path / "ready").exists():
        assert part.is_alive()
        time.sleep(0.05)
    command.end_group(part)
    assert part.poll() == -signal.SIGTERM
    assert (tmp_path / "saved").exists()


@pytest.mark.slow
def test_operations_and_pipeline_at_toy_size(tmp_path):
    found = toy(tmp_path, "b")
    gradients = [row for row in found if "atrous" in row["settings"]["work"]]
    others = [row for row in found if "depthwise" in row["settings"]["work"]]
    assert {row["settings"]["name"] for row in gradients} == set(operations.GRADIENTS)
    assert {row["settings"]["name"] for row in others} == set(operations.CONVOLUTIONS)
    assert all(row["figures"]["milliseconds"] > 0 for row in gradients)
    assert all(row["figures"]["gradient_of_kernel"]["milliseconds"] > 0 for row in others)
    path = tmp_path / "b.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert len(toy(tmp_path, "b")) == len(found)
    assert len(path.read_text().splitlines()) == len(lines) + 1

    assert toy(tmp_path, "e")[0]["figures"]["images_per_second_per_core"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", "acd")
def test_networks_at_toy_size(tmp_path, part):
    found = toy(tmp_path, part)
    alone = [row for row in found if row["settings"]["measure"] == "alone"]
    assert alone
    for row in alone:
        assert row["figures"]["images_per_second"] > 0
        assert 0 < row["figures"]["mfu"] < 1
        assert row["figures"]["planned_bytes"] > 0
    for row in (row for row in found if row["settings"]["measure"] == "beside the baseline"):
        assert row["status"] == "measured" or "pip install" in row["reason"]
    profiles = [row for row in found if row["settings"]["measure"] == "profile"]
    assert bool(profiles) == (part == "a")
    assert all(row["figures"]["milliseconds_by_kind"] for row in profiles)


@pytest.mark.slow
def test_camvid_at_toy_size(tmp_path):
    (row,) = toy(tmp_path, "f")
    assert row["figures"]["last"]["step"] == 2
    assert 0 <= row["figures"]["last"]["validation_mean_iou"] <= 1


def test_camvid_needs_its_source(tmp_path):
    from experiments.gpu_suite import host

    (one,) = host.camvid(False, tmp_path, None)
    with pytest.raises(DeepLabError, match="--camvid"):
        one.run()


def test_a_complete_run_does_not_use_the_files_of_a_toy_run(tmp_path, monkeypatch):
    from experiments.gpu_suite import host

    commands = []

    def record(*arguments):
        flags = dict(word.split("=", 1) for word in arguments if word.startswith("--"))
        commands.append(flags)
        if arguments[0] == "train":
            workdir = Path(flags["--workdir"])
            workdir.mkdir()
            (workdir / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n')

    monkeypatch.setattr(host, "_command", record)
    for toy_size in (True, False):
        (one,) = host.camvid(toy_size, tmp_path, tmp_path / "source")
        assert one.run()["last"] == {"step": 2, "loss": 1.0}
    prepared, trained = commands[::2], commands[1::2]
    assert len({flags["--data_dir"] for flags in prepared}) == 2
    assert len({flags["--workdir"] for flags in trained}) == 2
    for before, after in zip(prepared, trained, strict=True):
        assert after["--config.data.data_dir"] == before["--data_dir"]


def test_the_pipeline_is_not_compared_with_steps_at_toy_size(tmp_path):
    from experiments.gpu_suite import host

    for side, speed in ((32, 900.0), (512, 30.0), (33, 800.0)):
        settings = {"network": "mobilenet_v2", "size": [side, side]}
        figures = {"images_per_second": speed}
        row = {"settings": settings, "status": "measured", "figures": figures}
        rows.append(tmp_path / "c.jsonl", row)
    assert host._steps_images_per_second(tmp_path, least=250) == {"mobilenet_v2": 30.0}


PROGRAM = """HloModule jit_f

%fused (p: bf16[256]) -> bf16[256] {
  %copy.9 = bf16[9,9,9,9]{3,2,1,0} copy(%p)
}

ENTRY %main (x: bf16[2,65,65,8]) -> f32[3,3,8,8] {
  %x = bf16[2,65,65,8]{3,2,1,0} parameter(0)
  %wrapped_transpose = bf16[8,65,65,2]{3,2,1,0} fusion(%x), kind=kInput, calls=%fused
  %copy.1 = bf16[2,2]{0,1} copy(%x)
  %c.1 = (bf16[8,3,3,8]{3,2,1,0}, u8[0]{0}) custom-call(%x), window={size=65x65 stride=2x2}, \
custom_call_target="__cudnn$convForward"
  %c.2 = (bf16[8,3,3,8]{3,2,1,0}, u8[0]{0}) custom-call(%x), window={size=3x3}, \
custom_call_target="__cudnn$convBackwardFilter"
  %g = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%gemm_fusion_dot
  %gemm_fusion_dot.1 = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%gemm
  ROOT %loop = f32[3,3,8,8]{3,2,1,0} fusion(%c.1), kind=kLoop, calls=%fused
}
"""


def test_a_program_is_counted_by_kernel():
    assert ahead.count(PROGRAM) == {
        "convolutions": {"convForward": 1, "convBackwardFilter": 1},
        "windows_of_maps": 1,
        "kernels": 7,
        "matrix_products": 1,
        "transposes": 1,
        "bytes_of_transposes": 2 * 8 * 65 * 65 * 2,
        "copies": 1,
        "bytes_of_copies": 8,
        "bytes_of_float32_maps": 4 * 9 * 64,
        "bytes_written": 2 * 8 * 65 * 65 * 2 + 8 + 2 * 2 * 9 * 64 + 2 * 2 * 64 + 4 * 9 * 64,
    }


@pytest.mark.parametrize("step", [False, True])
def test_toy_programs_are_other_measurements_than_complete_ones(step):
    toy_keys, keys = (
        {one.key for one in ahead.measurements("here", toy_size, step)}
        for toy_size in (True, False)
    )
    assert toy_keys
    assert keys
    assert not toy_keys & keys


def test_gradients_compiled_for_the_device_here(tmp_path):
    command = [sys.executable, "-m", "experiments.gpu_suite.ahead", "--device=here", "--toy"]
    file = tmp_path / "rows.jsonl"
    subprocess.run([*command, f"--output={file}"], cwd=ROOT, check=True, capture_output=True)
    found = [row for row in rows.read(file) if row["status"] != "started"]
    assert {row["settings"]["name"] for row in found} == set(operations.GRADIENTS)
    assert all(row["figures"]["kernels"] > 0 for row in found)
