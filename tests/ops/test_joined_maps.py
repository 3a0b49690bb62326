"""Convolution of an upsampled map concatenated with a fine map, computed at the coarse size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once

from deeplab_jax import ops
from deeplab_jax.ops import joined_maps

RANDOM = np.random.default_rng(0)
COARSE, FINE = (2, 5, 7, 4), (2, 17, 25, 3)


def maps(coarse=COARSE, fine=FINE):
    return RANDOM.normal(size=coarse), RANDOM.normal(size=fine)


def with_gradients(align_corners, **settings):
    def convolved(coarse, fine, kernel):
        joined = ops.JoinedMaps(coarse, fine, align_corners)
        return ops.convolution(joined, kernel, **settings)

    def outputs_and_gradients(*arrays):
        outputs, pull = jax.vjp(convolved, *arrays)
        return outputs, *pull(jnp.cos(outputs))

    return outputs_and_gradients


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (3, {"padding": ((1, 1), (1, 1))}),
        (1, {"padding": ((0, 0), (0, 0))}),
        (5, {"padding": ((2, 2), (2, 2))}),
        (3, {"padding": ((0, 2), (3, 0)), "rate": (2, 1)}),
        (3, {"padding": ((6, 6), (6, 6)), "rate": 6}),
        (3, {"padding": ((1, 1), (1, 1)), "stride": 2}),
    ],
)
def test_equals_enlarging_first(align_corners, size, settings):
    coarse, fine = maps()
    kernel = RANDOM.normal(size=(size, size, 7, 6))
    program = with_gradients(align_corners, **settings)
    with jax.enable_x64(True):
        found = run_once(program, coarse, fine, kernel)
        with ops.dispatching(export=True):
            expected = run_once(program, coarse, fine, kernel)
        array = ops.JoinedMaps(jnp.asarray(coarse), jnp.asarray(fine), align_corners).array()
        outputs = ops.convolution(array, kernel, **settings)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[0], outputs, rtol=0, atol=1e-12)


def test_large_maps_are_interpolated_in_blocks_of_lines(monkeypatch):
    matrix, lines = RANDOM.normal(size=(9, 4)), RANDOM.normal(size=(7, 4, 3))
    # Two copies of the float64 matrix fit; the last of the four blocks is padded.
    monkeypatch.setattr(joined_maps, "MAX_COPIED_BYTES", 2 * matrix.nbytes + 1)
    with jax.enable_x64(True):
        found = joined_maps._interpolate_lines(jnp.asarray(matrix), jnp.asarray(lines))
        program = str(jax.make_jaxpr(joined_maps._interpolate_lines)(matrix, lines))
    assert "f64[2,9,4]" in program
    assert "f64[7,9,4]" not in program
    np.testing.assert_allclose(found, np.einsum("ts,msc->mtc", matrix, lines), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("fine", "pays"), [((1, 65, 65, 8), True), ((1, 25, 25, 8), False)])
def test_the_coarse_map_is_multiplied_where_that_is_less_work(fine, pays):
    coarse, fine = maps((1, 17, 17, 64), fine)
    kernel = jnp.zeros((3, 3, 72, 16))

    def operations(program):
        compiled = jax.jit(program).lower(jnp.float32(coarse), jnp.float32(fine), kernel).compile()
        return compiled.cost_analysis()["flops"]

    def convolved(coarse, fine, kernel):
        return ops.convolution(ops.JoinedMaps(coarse, fine), kernel, padding=((1, 1), (1, 1)))

    def enlarged(coarse, fine, kernel):
        joined = ops.JoinedMaps(coarse, fine).array()
        return ops.convolution(joined, kernel, padding=((1, 1), (1, 1)))

    ours, enlarged_first = operations(convolved), operations(enlarged)
    assert ours < 0.5 * enlarged_first if pays else ours >= 0.9 * enlarged_first


def test_joined_maps_have_shape_dtype_and_values_of_an_array():
    coarse, fine = (array.astype(np.float32) for array in maps())
    joined = ops.JoinedMaps(jnp.asarray(coarse), jnp.asarray(fine))
    array = ops.as_array(joined)
    assert (joined.shape, joined.dtype) == (array.shape, array.dtype) == ((2, 17, 25, 7), "float32")
    half = joined.astype(jnp.bfloat16)
    assert half.dtype == ops.as_array(half).dtype == jnp.bfloat16
    np.testing.assert_array_equal(array[:, ::4, ::4, :4], coarse)
    np.testing.assert_array_equal(array[..., 4:], fine)
    assert ops.as_array(array) is array
