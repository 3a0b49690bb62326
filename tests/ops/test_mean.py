"""Averages over windows of maps whose size is known only when the program runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from deeplab_jax import ops
from deeplab_jax.heads.aspp import average


def by_loops(inputs, window, stride):
    """Returns the averages in float64, computed one window at a time."""
    size = inputs.shape[1:3]
    rows, columns = map(min, window, size)
    return np.array(
        [
            [
                inputs[:, i : i + rows, j : j + columns].astype(np.float64).mean((1, 2))
                for j in range(0, size[1] - columns + 1, stride[1])
            ]
            for i in range(0, size[0] - rows + 1, stride[0])
        ]
    ).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(
    "stride",
    [(2, 3), *(pytest.param(stride, marks=pytest.mark.slow) for stride in [(1, 1), (4, 5)])],
)
def test_against_loops_at_sizes_that_were_not_known(stride):
    window = (5, 4)
    shape = export.symbolic_shape("N, h+1, w+1, 3", constraints=["h >= 1", "w >= 1"])
    traced = export.export(jax.jit(lambda maps: average(maps, window, stride)))(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    for size in [(2, 2), (5, 4), (9, 3), (3, 9), (12, 13)]:
        maps = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        expected = by_loops(maps, window, stride)
        for found in (traced.call(maps), average(maps, window, stride)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            ops.mean_over_windows(maps, window, stride), expected, rtol=0, atol=1e-6
        )


def test_names_encode_window_and_stride():
    with ops.dispatching(export=True):
        traced = jax.make_jaxpr(lambda maps: ops.mean_over_windows(maps, (33, 5), (4, 1)))(
            jnp.zeros((1, 40, 6, 2))
        )
    (call,) = traced.jaxpr.eqns
    assert ops.parse_windows_name(call.params["name"]) == ((33, 5), (4, 1))
    assert ops.parse_windows_name(ops.MEAN_NAME) is None
