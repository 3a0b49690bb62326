"""The implementation of an operation is selected by `Dispatch` and platform."""

import jax
import jax.numpy as jnp
import pytest

from deeplab_jax import ops
from deeplab_jax.parallel import make_mesh
from deeplab_jax.parallel.mesh import row_sharding

IMAGE, KERNEL = jnp.ones((1, 9, 9, 4)), jnp.ones((1, 1, 4, 4))
NO_PADDING = ((0, 0), (0, 0))
CASES = {
    "dense": (ops.convolution, KERNEL),
    "depthwise": (ops.depthwise_convolution, jnp.ones((3, 3, 1, 4))),
}


def lowered(operation, kernel):
    program = jax.jit(lambda image, kernel: operation(image, kernel, padding=NO_PADDING))
    return program.lower(IMAGE, kernel).as_text()


ROWS = row_sharding(make_mesh(jax.devices()[:1]))


@pytest.mark.parametrize("fields", [{"rows_sharded": ROWS}, {"export": True}])
@pytest.mark.parametrize("name", CASES)
def test_dispatch_settings_apply_after_calls_without_them(name, fields):
    operation, kernel = CASES[name]
    assert "stablehlo.convolution" not in lowered(operation, kernel)
    with ops.dispatching(**fields):
        assert "stablehlo.convolution" in lowered(operation, kernel)
    assert "stablehlo.convolution" not in lowered(operation, kernel)


def test_rate_and_stride_select_different_programs():
    def shape(**settings):
        kernel = jnp.ones((3, 3, 4, 2))
        return ops.convolution(IMAGE, kernel, padding=NO_PADDING, **settings).shape[1:3]

    assert [shape(rate=1), shape(rate=2), shape(stride=2)] == [(7, 7), (5, 5), (4, 4)]
