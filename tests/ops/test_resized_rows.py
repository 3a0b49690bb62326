import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once

from deeplab_jax import ops
from deeplab_jax.ops import resized_rows

RANDOM = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("align_corners", [True, False])
SIZES = [
    ((4, 7), (7, 4)),
    ((9, 5), (32, 17)),
    ((9, 5), (45, 33)),
    ((33, 6), (17, 9)),
    ((3, 4), (3, 4)),
]


@BOTH
@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("classes", [1, 5, resized_rows.MAX_CLASSES_IN_A_LOOP + 1])
def test_argmax_is_that_of_the_whole_resized_map(source, target, classes, align_corners):
    scores = RANDOM.normal(size=(2, *source, classes)).astype(np.float32)

    def both(scores):
        whole = ops.resize_bilinear(scores, target, align_corners=align_corners)
        found = ops.argmax_of_resized(scores, target, align_corners=align_corners)
        with ops.dispatching(export=True):
            plain = ops.argmax_of_resized(scores, target, align_corners=align_corners)
        return jnp.argmax(whole, -1), found, plain

    expected, found, plain = run_once(both, scores)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(plain, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_argmax_is_the_first_of_equal_scores_and_the_first_nan(dtype):
    classes = np.array([[1, 3, 3, 2], [np.nan, 3, np.nan, 9], [-9, -9, 0, np.nan]])
    scores = jnp.asarray(np.repeat(classes[:, None, None], 2, 1).repeat(2, 2), dtype)
    found = run_once(lambda scores: ops.argmax_of_resized(scores, (3, 5)), scores)
    expected = np.argmax(classes, axis=-1)
    np.testing.assert_array_equal(found, np.broadcast_to(expected[:, None, None], (3, 3, 5)))


def test_bfloat16_scores_are_compared_after_rounding():
    scores = jnp.asarray(RANDOM.normal(size=(1, 9, 9, 7)), jnp.bfloat16)
    found, expected = run_once(
        lambda scores: (
            ops.argmax_of_resized(scores, (33, 33)),
            jnp.argmax(ops.resize_bilinear(scores, (33, 33)), -1),
        ),
        scores,
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rows", [1, 4, 32, 100])
def test_blocks_put_together_are_the_resized_map(rows):
    inputs = RANDOM.normal(size=(2, 9, 5, 3)).astype(np.float32)

    def whole(inputs):
        resized = ops.ResizedRows.of(inputs, (33, 17), rows)
        joined = resized.join(jnp.stack([resized.block(each) for each in resized.weights]))
        return joined, resized.join(resized.split(joined, beyond=7))

    joined, again = run_once(whole, inputs)
    expected = run_once(lambda inputs: ops.resize_bilinear(inputs, (33, 17)), inputs)
    np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(again, joined)


def test_an_argmax_needs_no_resized_map_on_cpus():
    scores = jax.ShapeDtypeStruct((1, 33, 33, 21), jnp.float32)
    compiled = (
        jax.jit(lambda scores: ops.argmax_of_resized(scores, (513, 513))).lower(scores).compile()
    )
    resized = 513 * 513 * 21 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < resized / 10
