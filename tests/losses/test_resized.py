from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_samples import LABEL, LOGITS, NUM_CLASSES, PARTLY_VOID, SOFT_PARTLY_VOID, WEIGHTS

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses import resized_cross_entropy, softmax_cross_entropy

# Labels are 5 × 7; scores of half and of all of that size.
HALF = LOGITS[:, :3, :4]
LABELS = {
    "classes": LABEL,
    "partly void": PARTLY_VOID,
    "soft": SOFT_PARTLY_VOID,
    "void": np.full_like(LABEL, 255),
}
OPTIONS = {"class_weights": WEIGHTS, "label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("label", "rows", "align_corners"),
    [
        *((label, 2, True) for label in LABELS.values()),
        *((PARTLY_VOID, rows, False) for rows in (1, 5, 64)),
    ],
)
def test_value_and_gradient_are_those_of_the_enlarged_scores(label, rows, align_corners):
    def whole(scores):
        enlarged = ops.resize_bilinear(scores, label.shape[1:3], align_corners=align_corners)
        return softmax_cross_entropy(enlarged, label, **OPTIONS)

    by_rows = partial(
        resized_cross_entropy, label=label, rows=rows, align_corners=align_corners, **OPTIONS
    )
    expected, slopes = jax.value_and_grad(whole)(HALF)
    found, found_slopes = jax.jit(jax.value_and_grad(by_rows))(HALF)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found_slopes, slopes, rtol=0, atol=1e-7)


def test_normalizer_divides():
    whole = resized_cross_entropy(HALF, LABEL, rows=2)
    part = resized_cross_entropy(HALF, LABEL, 2.0 * LABEL.size, rows=2)
    np.testing.assert_allclose(part, whole / 2, rtol=1e-6)


def test_memory_is_that_of_a_block():
    label = jax.ShapeDtypeStruct((2, 257, 257), jnp.uint8)
    scores = jax.ShapeDtypeStruct((2, 17, 17, 21), jnp.float32)
    gradient = jax.grad(partial(resized_cross_entropy, rows=16))
    compiled = jax.jit(gradient).lower(scores, label).compile()
    logits = 2 * 257 * 257 * 21 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < logits / 2


def test_rows_of_nothing_and_other_classes_are_refused():
    with pytest.raises(DeepLabError, match=r"rows=0, .* must be at least 1"):
        resized_cross_entropy(HALF, LABEL, rows=0)
    with pytest.raises(DeepLabError, match=r"the label must have shape .*got"):
        resized_cross_entropy(HALF, np.zeros((*LABEL.shape, NUM_CLASSES + 1), np.float32), rows=2)
