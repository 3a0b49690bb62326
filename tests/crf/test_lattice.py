import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crf.exact import gaussian_matrix

from deeplab_jax.crf import AllPairs, build_lattice
from deeplab_jax.crf.vertices import embed, vertex_cells

RANDOM = np.random.default_rng(0)


def points(dimensions, count, spread):
    return RANDOM.normal(0, spread, (dimensions, count)).astype(np.float32)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_a_point_is_the_weighted_mean_of_its_simplex(dimensions):
    features = points(dimensions, 200, 3)
    corner, rank, weight = (np.asarray(part) for part in embed(jnp.asarray(features)))
    assert (weight >= -1e-5).all()
    np.testing.assert_allclose(weight.sum(axis=0), 1, atol=1e-5)
    vertices = [
        np.asarray(vertex_cells(corner, rank, k)) * (dimensions + 1) + k
        for k in range(dimensions + 1)
    ]
    # Vertices lie in the hyperplane; the means keep the points' distances, up to the scale.
    assert not np.sum(vertices, axis=1).any()
    means = np.einsum("kn,kin->in", weight, np.stack(vertices))
    scale = np.sqrt(2 / 3) * (dimensions + 1)
    lengths = np.linalg.norm(features[:, 1:] - features[:, :-1], axis=0) * scale
    np.testing.assert_allclose(
        np.linalg.norm(means[:, 1:] - means[:, :-1], axis=0), lengths, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("dimensions", "count"),
    [
        pytest.param(1, 3, marks=pytest.mark.slow),
        pytest.param(2, 300, marks=pytest.mark.slow),
        (5, 301),
    ],
)
def test_the_filter_is_near_a_gaussian(dimensions, count):
    features = points(dimensions, count, 1)
    values = RANDOM.random((count, 3)).astype(np.float32)
    kernel = gaussian_matrix(features.T)
    lattice = build_lattice(jnp.asarray(features))
    found = lattice.filter(values) / lattice.filter(np.ones((count, 1), np.float32))
    expected = kernel @ values / kernel.sum(axis=1, keepdims=True)
    assert np.abs(found - expected).mean() < 0.01 + 0.01 * dimensions


def test_all_pairs_are_the_gaussian():
    features, values = points(5, 700, 2), RANDOM.random((700, 3)).astype(np.float32)
    found = AllPairs(jnp.asarray(features)).filter(values)
    np.testing.assert_allclose(found, gaussian_matrix(features.T) @ values, rtol=1e-4)


@pytest.mark.parametrize("build", [build_lattice, AllPairs])
def test_the_gradient_is_the_transpose(build):
    lattice = build(jnp.asarray(points(5, 60, 1)))
    matrix = lattice.filter(jnp.eye(60))
    _, pull_back = jax.vjp(lattice.filter, jnp.eye(60))
    np.testing.assert_allclose(pull_back(jnp.eye(60))[0], matrix.T, atol=1e-6)


@pytest.mark.slow
def test_padding_counts_nothing():
    features, values = points(2, 50, 2), RANDOM.random((50, 2)).astype(np.float32)
    padded = np.pad(features, ((0, 0), (0, 14)), mode="edge")
    lattice = build_lattice(jnp.asarray(padded), 50)
    found = lattice.filter(np.pad(values, ((0, 14), (0, 0)), constant_values=7))[:50]
    np.testing.assert_allclose(
        found, build_lattice(jnp.asarray(features)).filter(values), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "count",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow), 4000],
)
def test_points_in_one_place_gather_in_one_simplex(count):
    lattice = build_lattice(jnp.zeros((5, count)))
    values = jnp.arange(count, dtype=jnp.float32)[:, None]
    ratio = lattice.filter(values) / lattice.filter(jnp.ones((count, 1)))
    np.testing.assert_allclose(ratio, (count - 1) / 2, rtol=1e-4)


@pytest.mark.slow
def test_the_lattice_inside_of_jit_is_the_one_outside():
    features, values = points(3, 90, 2), RANDOM.random((90, 2)).astype(np.float32)
    inside = jax.jit(lambda f, v: build_lattice(f).filter(v))(features, values)
    outside = build_lattice(jnp.asarray(features)).filter(values)
    np.testing.assert_allclose(inside, outside, rtol=1e-5, atol=1e-6)


def test_the_capacity_may_equal_the_number_of_vertices():
    features, values = jnp.zeros((1, 3)), jnp.arange(3.0)[:, None]
    # The simplex around a point in one dimension has two vertices.
    found, too_small = (
        jax.jit(lambda f, v, n=capacity: build_lattice(f, capacity=n).filter(v))(features, values)
        for capacity in (2, 1)
    )
    np.testing.assert_allclose(found, build_lattice(features).filter(values), rtol=1e-6)
    assert np.isnan(too_small).all()
