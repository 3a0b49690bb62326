import jax
import numpy as np
import pytest
from pixel_samples import LOGITS, PARTLY_VOID

from deeplab_jax.losses import (
    dice_loss,
    num_valid_pixels,
    softmax_cross_entropy,
    weighted_sum,
    with_auxiliary,
)

AUXILIARY = LOGITS[::-1]


@pytest.mark.parametrize("normalizer", [None, 100.0])
def test_terms_count_by_their_weights(normalizer):
    loss = jax.jit(weighted_sum((2.0, softmax_cross_entropy), (0.25, dice_loss)))
    expected = 2 * softmax_cross_entropy(LOGITS, PARTLY_VOID, normalizer)
    expected += 0.25 * dice_loss(LOGITS, PARTLY_VOID, normalizer)
    np.testing.assert_allclose(loss(LOGITS, PARTLY_VOID, normalizer), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, dice_loss])
def test_an_auxiliary_head_counts_by_its_weight(loss):
    count = 2 * num_valid_pixels(PARTLY_VOID)
    found = with_auxiliary(loss, LOGITS, AUXILIARY, PARTLY_VOID, count, weight=0.4)
    expected = loss(LOGITS, PARTLY_VOID, count) + 0.4 * loss(AUXILIARY, PARTLY_VOID, count)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert with_auxiliary(loss, LOGITS, None, PARTLY_VOID) == loss(LOGITS, PARTLY_VOID)
