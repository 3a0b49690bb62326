from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_samples import KNOWN, LABEL, PARTLY_VOID, SOFT, SOFT_PARTLY_VOID

from deeplab_jax.losses import masked_label, num_valid_pixels, shrink_labels


@pytest.mark.parametrize("label", [PARTLY_VOID, PARTLY_VOID.astype(np.int32), SOFT_PARTLY_VOID])
def test_valid_pixels_exclude_void(label):
    assert float(num_valid_pixels(label)) == KNOWN.sum()


def test_more_pixels_are_counted_than_float32_can_count_one_by_one():
    shape = jax.eval_shape(num_valid_pixels, jax.ShapeDtypeStruct((1,), jnp.uint8))
    assert (shape.shape, shape.dtype) == ((), jnp.float32)
    assert float(num_valid_pixels(np.zeros((4100, 4100), np.uint8))) == 4100 * 4100 > 2**24


def test_more_pixels_are_counted_than_an_int32_can_count():
    rows, columns = 2**12, 2**19 + 1

    def count(pixel):
        return num_valid_pixels(jnp.broadcast_to(pixel, (1, rows, columns)))

    assert float(jax.jit(count)(jnp.uint8(0))) == rows * columns > 2**31


@pytest.mark.parametrize(("label", "masked"), [(LABEL, PARTLY_VOID), (SOFT, SOFT_PARTLY_VOID)])
def test_masked_pixels_are_void(label, masked):
    found = masked_label(label, KNOWN)
    np.testing.assert_array_equal(found, masked)
    assert found.dtype == label.dtype


@pytest.mark.parametrize(("size", "scores", "stride"), [(321, 41, 8), (321, 21, 16), (65, 9, 8)])
def test_papers_sizes_keep_every_eighth_or_sixteenth_pixel(size, scores, stride):
    random = np.random.default_rng(0)
    label = random.integers(0, 256, (2, size, size + 8 * stride), dtype=np.uint8)
    found = shrink_labels(label, (scores, scores + 8))
    np.testing.assert_array_equal(found, label[:, ::stride, ::stride])
    assert found.dtype == np.uint8


def nearest(source, target, index):
    """Returns the source index nearest to the target's position, the later one of two."""
    position = Fraction(index * (source - 1), max(target - 1, 1))
    return min(range(source), key=lambda candidate: (abs(candidate - position), -candidate))


@pytest.mark.parametrize("size", [(7, 5), (2, 3), (1, 4), (6, 1), (12, 9), (23, 20)])
@pytest.mark.parametrize("soft", [False, True])
def test_other_sizes_take_the_nearest_pixel(size, soft):
    label = np.arange(2 * 12 * 9, dtype=np.float32 if soft else np.int32).reshape(2, 12, 9)
    label = label[..., None] + np.array([0, 0.5], np.float32) if soft else label
    found = jax.jit(shrink_labels, static_argnums=1)(label, size)
    assert found.shape == (2, *size, *label.shape[3:])
    for row, column in np.ndindex(*size):
        source = label[:, nearest(12, size[0], row), nearest(9, size[1], column)]
        np.testing.assert_array_equal(found[:, row, column], source)
