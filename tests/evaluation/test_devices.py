"""The numbers do not depend on devices: one against eight that XLA simulates, or two processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
from evaluation_process import detect_errors, validate

from deeplab_jax.parallel import make_mesh

HELPERS = pathlib.Path(__file__).parents[1] / "helpers"
PROGRAM = """
import json
import sys

import jax
import jax.numpy as jnp
from stand_ins import Convolution, random_dataset

from deeplab_jax.evaluation import Evaluator, evaluate
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.parallel import make_mesh

dataset = random_dataset([(20, 31), (33, 33), (40, 7), (1, 50), (25, 25), (9, 9)])
names, palette = dataset.descriptor.class_names, dataset.descriptor.palette
model = Convolution()
variables = model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8))
results = []
for devices in (jax.devices()[:1], jax.devices()):
    mesh = make_mesh(devices)
    predictor = Predictor(model, variables, names, palette)
    results.append(evaluate(predictor, dataset, batch_size=3, mesh=mesh))
    fast = Evaluator(model, dataset, batch_size=5, mesh=mesh).run(variables)
    assert fast.counts.tolist() == results[-1]["confusion_matrix"]
    for options in (
        InferenceOptions(scales=(0.5, 1), flip=True),
        InferenceOptions(tile=(49, 49), overlap=0.1),
    ):
        metrics = evaluate(predictor, dataset, options=options, batch_size=3, mesh=mesh)
        del metrics["settings"]
        results[-1][repr(options)] = metrics
# Rows of 4 or of 2 parts of the batch on 2 or on 4 devices; six images fill neither's last batch.
for spatial in (2, 4):
    mesh = make_mesh(jax.devices(), spatial=spatial)
    fast = Evaluator(model, dataset, batch_size=4, mesh=mesh).run(variables)
    assert fast.counts.tolist() == results[0]["confusion_matrix"]
json.dump(results, sys.stdout)
"""


def environment(devices):
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join([str(HELPERS), str(HELPERS.parent)]),
    }


def test_eight_devices_measure_what_one_does():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment(8), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    one, eight = json.loads(result.stdout)
    assert one.pop("settings")["batch_size"] == 3
    settings = eight.pop("settings")
    assert (settings["batch_size"], settings["devices"]) == (8, "8 x cpu")
    assert eight == one


@pytest.fixture(scope="module")
def processes():
    """Results of two processes with one device each, of which each may print other lines first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    script = pathlib.Path(__file__).with_name("evaluation_process.py")
    running = [
        subprocess.Popen(
            [sys.executable, script, address, "2", str(process)],
            env=environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    printed = [process.communicate(timeout=200)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(printed)
    return [json.loads(text[text.rindex('{"rows"') :].splitlines()[0]) for text in printed]


def test_processes_that_share_the_rows_of_an_image_validate_as_one(processes):
    expected = validate(make_mesh())
    assert expected["batches"] == 6
    assert [each["rows"] for each in processes] == [expected] * 2


def test_processes_estimate_the_uncertainty_of_their_own_images(processes):
    expected = detect_errors(make_mesh())
    for each in processes:
        for name, found in expected.items():
            assert each["images"][name] == pytest.approx(found, abs=1e-4)
