import functools

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once

from deeplab_jax import ops
from deeplab_jax.ops import neighbors, resize

RANDOM = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("align_corners", [True, False])
SIZES = [
    ((4, 7), (7, 4)),
    ((9, 5), (33, 17)),
    ((33, 17), (9, 5)),
    ((1, 6), (5, 1)),
    ((8, 6), (16, 13)),
]


def maps(size, dtype=np.float64):
    return RANDOM.normal(size=(2, *size, 3)).astype(dtype)


def from_neighbors(monkeypatch):
    """On CPUs, resized maps are sums of neighbors."""


def from_few_neighbors(monkeypatch):
    """On CPUs, matrices with many elements per row are multiplied as dense matrices."""
    monkeypatch.setattr(neighbors, "MAX_NEIGHBORS", 3)


def as_products(monkeypatch):
    """On other platforms, resized maps are products with matrices."""
    monkeypatch.setattr(resize, "dispatch", lambda reference, cpu, *operands: reference(*operands))


@BOTH
@pytest.mark.parametrize("choose", [from_neighbors, from_few_neighbors, as_products])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_value_and_gradient_equal_loops_over_pixels(
    source, target, choose, align_corners, monkeypatch
):
    choose(monkeypatch)
    inputs, cotangent = maps(source), maps(target)
    rows, columns = (
        brute_force.interpolation(*pair, align_corners) for pair in zip(source, target, strict=True)
    )

    def with_gradient(inputs, cotangent):
        resize = functools.partial(ops.resize_bilinear, size=target, align_corners=align_corners)
        found, pull = jax.vjp(resize, inputs)
        return found, *pull(cotangent)

    with jax.enable_x64(True):
        found, gradient = run_once(with_gradient, inputs, cotangent)
        assert found.dtype == gradient.dtype == np.float64
    expected = np.einsum("Hh,Ww,nhwc->nHWc", rows, columns, inputs)
    transposed = np.einsum("Hh,Ww,nHWc->nhwc", rows, columns, cotangent)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient, transposed, rtol=0, atol=1e-13)


@BOTH
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0)])
def test_resizing_keeps_constants_and_the_dtype(align_corners, dtype, tolerance):
    resized = run_once(
        lambda x: ops.resize_bilinear(x, (34, 17), align_corners=align_corners),
        jnp.full((1, 9, 7, 2), 3, dtype),
    )
    assert resized.dtype == dtype
    np.testing.assert_allclose(np.asarray(resized, np.float64), 3, rtol=tolerance)


@pytest.mark.parametrize(
    ("target", "step", "source_step"), [((33, 17), 4, 1), ((23, 38), (22, 37), (8, 4))]
)
def test_aligned_grid_points_are_exact(target, step, source_step):
    inputs = maps((9, 5), np.float32)
    resized = run_once(lambda x: ops.resize_bilinear(x, target), inputs)
    rows, columns = np.broadcast_to(step, 2)
    source_rows, source_columns = np.broadcast_to(source_step, 2)
    np.testing.assert_array_equal(
        resized[:, ::rows, ::columns], inputs[:, ::source_rows, ::source_columns]
    )


def test_gradients_of_resized_maps_of_single_images_equal_those_of_the_batch():
    inputs, cotangent = maps((5, 4), np.float32), maps((9, 17), np.float32)

    def gradient(inputs, cotangent):
        return jax.grad(lambda x: jnp.sum(ops.resize_bilinear(x, (9, 17)) * cotangent))(inputs)

    def of_image(*arrays):
        return gradient(*(array[None] for array in arrays))[0]

    single, batch = run_once(
        lambda *arrays: (jax.vmap(of_image)(*arrays), gradient(*arrays)), inputs, cotangent
    )
    np.testing.assert_allclose(single, batch, rtol=0, atol=1e-6)


@BOTH
def test_the_same_size_is_the_identity(align_corners):
    inputs = jnp.asarray(maps((5, 4), np.float32))
    assert ops.resize_bilinear(inputs, (5, 4), align_corners=align_corners) is inputs


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((513, 321), 0.75, (385, 241)),
        ((321, 65), 0.5, (161, 33)),
        ((513, 513), 1.75, (897, 897)),
        # In floating point, 180 · 1.4 and 720 · 1.4 are slightly below 252 and 1008.
        ((181, 721), 1.4, (253, 1009)),
    ],
)
def test_scaled_sizes_are_the_papers(size, scale, expected):
    assert ops.scaled_size(size, scale) == expected


def every_resize(inputs, size, align_corners):
    """Yields the result of every implementation: those for CPUs and the one for export."""
    resize = functools.partial(ops.resize_bilinear, size=size, align_corners=align_corners)
    yield run_once(resize, inputs)
    with ops.dispatching(export=True):
        yield run_once(resize, inputs)
    rows = ops.ResizedRows.of(inputs, size, 7, align_corners=align_corners)
    yield rows.join(jax.lax.map(rows.block, rows.weights))
    fine = jnp.zeros((inputs.shape[0], *size, 1), inputs.dtype)
    yield ops.JoinedMaps(inputs, fine, align_corners).array()[..., : inputs.shape[-1]]
    identity = jnp.eye(inputs.shape[-1] + 1, inputs.shape[-1], dtype=inputs.dtype)[None, None]
    joined = ops.JoinedMaps(inputs, fine, align_corners)
    yield run_once(lambda maps: ops.convolution(maps, identity, padding=NO_PADDING), joined)


NO_PADDING = ((0, 0), (0, 0))
UP_AND_DOWN = [((9, 7), (34, 17)), ((5, 3), (33, 65)), ((65, 33), (17, 5)), ((300, 7), (31, 5))]


@BOTH
@pytest.mark.parametrize(("source", "target"), UP_AND_DOWN)
def test_constants_of_bfloat16_stay_exactly(source, target, align_corners):
    constants = jnp.array([1, 3, -0.3359375, 255], jnp.bfloat16)
    inputs = jnp.broadcast_to(constants, (1, *source, 4))
    for resized in every_resize(inputs, target, align_corners):
        assert resized.dtype == jnp.bfloat16
        np.testing.assert_array_equal(resized, jnp.broadcast_to(constants, (1, *target, 4)))


@BOTH
@pytest.mark.parametrize(("source", "target"), UP_AND_DOWN)
def test_bfloat16_is_rounded_once(source, target, align_corners):
    inputs = jnp.asarray(maps(source), jnp.bfloat16)
    exact = jnp.asarray(inputs, jnp.float32)
    expected = np.asarray(ops.resize_bilinear(exact, target, align_corners=align_corners))
    # Half a unit in the last of bfloat16's eight digits, and float32's own rounding of sums.
    bound = np.abs(expected) * 2.0**-8 + 1e-6
    for resized in every_resize(inputs, target, align_corners):
        assert np.all(np.abs(np.asarray(resized, np.float32) - expected) <= bound)
