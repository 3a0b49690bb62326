"""Compiler options per platform, and whether the installed compilers accept them."""

import os
import subprocess
import sys

import pytest

from deeplab_jax.cli.main import load_command
from deeplab_jax.parallel.chips import XLA_PLATFORMS, set_xla_options, xla_options

# Compiles a program for a slice, or a program on the CPU.
PROGRAM = """
import sys, jax
from jax.experimental import topologies
if sys.argv[1] == "gpu":
    print(jax.numpy.zeros(1))
else:
    topologies.get_topology_desc("v5e:2x2", platform="tpu")
"""


def test_the_flag_takes_every_platform():
    _, flags = load_command("train")
    assert flags["xla_options"].parser.enum_values == list(XLA_PLATFORMS)


def test_every_option_has_a_purpose_a_source_and_a_platform():
    named = {name for platform in XLA_PLATFORMS for name in xla_options(platform)}
    assert len(named) == 12
    for platform in XLA_PLATFORMS:
        for name, option in xla_options(platform).items():
            assert name.startswith(("xla_gpu_" if "gpu" in platform else "xla_tpu_", "xla_enable_"))
            assert option["source"].startswith("https://")
            assert option["purpose"]


def test_options_of_the_user_take_priority():
    environment = {"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=false"}
    line = set_xla_options("gpu", environment)
    words = environment["XLA_FLAGS"].split()
    assert words == [
        "--xla_gpu_enable_latency_hiding_scheduler=true",
        "--xla_gpu_enable_latency_hiding_scheduler=false",
    ]
    assert line == f"XLA_FLAGS={' '.join(words)}"


@pytest.mark.slow
@pytest.mark.parametrize("platform", [*XLA_PLATFORMS, "unknown option"])
def test_the_installed_compilers_accept_the_options(platform):
    kind = "tpu" if platform.startswith("tpu") else "gpu"
    if kind == "tpu":
        pytest.importorskip("libtpu")
    environment = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    if platform in XLA_PLATFORMS:
        set_xla_options(platform, environment)
    else:
        environment["XLA_FLAGS"] = "--xla_gpu_no_such_option=true"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (platform in XLA_PLATFORMS), done.stderr
