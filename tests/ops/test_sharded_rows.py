"""Convolution and resizing of maps whose rows are on several devices equal those on one device."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import itertools
import json
import sys

import jax
import numpy as np

from deeplab_jax import ops
from deeplab_jax.parallel import make_mesh
from deeplab_jax.parallel.mesh import row_sharding
from deeplab_jax.planning.collectives import find_collectives
from deeplab_jax.planning.hlo import parse

RANDOM = np.random.default_rng(0)


def convolution(groups=1, depthwise=False, **settings):
    def run(maps, kernel):
        if depthwise:
            return ops.depthwise_convolution(maps, kernel, **settings)
        return ops.convolution(maps, kernel, groups=groups, **settings)

    return run


def resized(rows, align_corners):
    return lambda maps, kernel: ops.resize_bilinear(
        maps, (rows, 5), align_corners=align_corners
    )


def cases():
    windows = (1, 1, 1), (1, 1, 2), (3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (7, 1, 2)
    for height, (size, rate, stride) in itertools.product((8, 9, 13, 17), windows):
        edge = ops.symmetric_padding(size, rate)
        yield f"{height} {size} {rate} {stride}", convolution(
            stride=stride, rate=rate, padding=edge
        ), (height, (size, size, 3, 4))
    same = ops.same_padding((16, 7), 3, 2, 1)
    yield "same", convolution(stride=2, padding=same), (16, (3, 3, 3, 4))
    yield "groups", convolution(groups=3, padding=((2, 2), (2, 2)), rate=2), (9, (3, 3, 1, 6))
    yield "depthwise", convolution(depthwise=True, padding=((1, 1), (1, 1))), (9, (3, 3, 1, 3))
    for (height, rows), align_corners in itertools.product(
        ((9, 33), (5, 17), (17, 9), (8, 32), (17, 12)), (True, False)
    ):
        yield f"{height} to {rows}, {align_corners}", resized(rows, align_corners), (
            height, (1, 1, 3, 3)
        )


def with_gradients(operation, mesh):
    def run(maps, kernel, weights):
        def total(maps, kernel):
            outputs = ops.constrain_rows(operation(ops.constrain_rows(maps), kernel))
            return (outputs * weights).sum(), outputs

        def sharded(maps, kernel):
            if mesh is None:
                return total(maps, kernel)
            with ops.dispatching(rows_sharded=row_sharding(mesh)):
                return total(maps, kernel)

        gradients, outputs = jax.grad(sharded, (0, 1), has_aux=True)(maps, kernel)
        return outputs, *gradients

    return jax.jit(run)


found = {}
for name, operation, (height, shape) in cases():
    maps, kernel = RANDOM.normal(size=(4, height, 7, 3)), RANDOM.normal(size=shape)
    weights = RANDOM.normal(size=jax.eval_shape(operation, maps, kernel).shape)
    expected = with_gradients(operation, None)(maps, kernel, weights)
    for data, spatial in ((4, 2), (2, 4)):
        mesh = make_mesh(data=data, spatial=spatial)
        step = with_gradients(operation, mesh).lower(maps, kernel, weights).compile()
        results = step(maps, kernel, weights)
        error = max(
            float(np.abs(np.asarray(one) - np.asarray(other)).max())
            for one, other in zip(results, expected)
        )
        sent = [
            (each.kind, each.axes, each.bytes)
            for each in find_collectives(parse(step.as_text()), dict(mesh.shape))
        ]
        found[f"{name} on {data}x{spatial}"] = error, sent
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def found():
    """Largest difference from one device, and the collectives, by case."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "JAX_NUM_CPU_DEVICES": "8",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_outputs_and_gradients_equal_those_of_one_device(found):
    assert len(found) == 82
    assert {name: error for name, (error, _) in found.items() if not error < 1e-12} == {}
