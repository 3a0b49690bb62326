"""Properties of all losses: void, parts of batches, dtypes, extreme values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_samples import (
    KNOWN,
    LABEL,
    LOGITS,
    NUM_CLASSES,
    ONE_HOT,
    PARTLY_VOID,
    SOFT,
    SOFT_PARTLY_VOID,
    WEIGHTS,
)

from deeplab_jax import losses
from deeplab_jax.errors import DeepLabError

SUMS_OVER_PIXELS = {
    "cross_entropy": losses.softmax_cross_entropy,
    "weighted": partial(losses.softmax_cross_entropy, class_weights=WEIGHTS),
    "smoothed": partial(losses.softmax_cross_entropy, label_smoothing=0.1, class_weights=WEIGHTS),
    "focal": losses.focal_loss,
    "focal_below_1": partial(losses.focal_loss, gamma=0.5, alpha=WEIGHTS),
    "focal_of_0": partial(losses.focal_loss, gamma=0.0),
}
OF_WHOLE_BATCH = {
    "hard_pixels": partial(losses.hard_pixel_cross_entropy, fraction=0.3),
    "dice": losses.dice_loss,
    "dice_of_all": partial(losses.dice_loss, present_only=False, smooth=0.0),
    "combined": losses.weighted_sum((0.7, losses.softmax_cross_entropy), (0.2, losses.dice_loss)),
}
OF_SETS = {
    "lovasz": losses.lovasz_softmax,
    "lovasz_per_image": partial(losses.lovasz_softmax, per_image=True),
}
# Another label than the true one.
CLAIMED = np.roll(LABEL, 3, axis=2)
TAKE_SOFT = SUMS_OVER_PIXELS | OF_WHOLE_BATCH
LOSSES = TAKE_SOFT | OF_SETS
# The value and the gradient of each.
EVERY = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in LOSSES.items()}
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)
soft_losses = pytest.mark.parametrize(
    "loss", [EVERY[name] for name in TAKE_SOFT], ids=list(TAKE_SOFT)
)
# The fraction of hard pixels is of all pixels, void included, as in the released code.
IGNORE_VOID = [name for name in EVERY if name != "hard_pixels"]


def subset(array):
    """Returns the valid pixels of both images as an image of one row."""
    return array[KNOWN][None, None]


@pytest.mark.parametrize("name", [name for name in IGNORE_VOID if name != "lovasz_per_image"])
def test_void_pixels_are_as_if_they_were_not_there(name):
    value, gradient = EVERY[name](LOGITS, PARTLY_VOID)
    expected, expected_gradient = EVERY[name](subset(LOGITS), subset(LABEL))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(subset(np.asarray(gradient)), expected_gradient, atol=1e-7)
    assert not np.any(gradient[~KNOWN])


@pytest.mark.parametrize("name", [name for name in IGNORE_VOID if name in TAKE_SOFT])
def test_soft_labels_of_zeros_are_void(name):
    value, gradient = EVERY[name](LOGITS, SOFT_PARTLY_VOID)
    expected, expected_gradient = EVERY[name](subset(LOGITS), subset(SOFT))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(subset(np.asarray(gradient)), expected_gradient, atol=1e-7)
    assert not np.any(gradient[~KNOWN])


@soft_losses
def test_one_hot_labels_are_the_classes_they_mark(loss):
    for found, expected in zip(loss(LOGITS, ONE_HOT), loss(LOGITS, PARTLY_VOID), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [1, 1e30])
def test_a_batch_that_is_all_void_has_no_loss_and_no_gradient(loss, dtype, scale):
    value, gradient = loss(jnp.asarray(LOGITS * scale, dtype), np.full_like(LABEL, 255))
    assert value == 0
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(gradient.astype(np.float32), np.zeros_like(LOGITS))


@soft_losses
def test_a_soft_batch_that_is_all_void_has_no_loss_and_no_gradient(loss):
    value, gradient = loss(LOGITS, np.zeros_like(SOFT))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(LOGITS))


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_right_and_wrong_by_10000_stay_finite(loss, dtype):
    logits = np.where(CLAIMED[..., None] == np.arange(NUM_CLASSES), 1e4, -1e4)
    for label in (CLAIMED, PARTLY_VOID, LABEL):
        value, gradient = loss(jnp.asarray(logits, dtype), label)
        assert value.dtype == jnp.float32
        assert np.isfinite(value)
        assert np.isfinite(gradient.astype(np.float32)).all()


@every_loss
def test_equal_logits_stay_finite(loss):
    value, gradient = loss(np.zeros_like(LOGITS), PARTLY_VOID)
    assert value > 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", EVERY)
def test_right_predictions_cost_nothing(name):
    logits = 1e4 * ONE_HOT
    value, gradient = EVERY[name](logits, PARTLY_VOID)
    if name == "smoothed":
        assert value > 100
    else:
        assert float(value) == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@every_loss
def test_bfloat16_is_computed_in_float32(loss):
    rounded = jnp.asarray(LOGITS, jnp.bfloat16)
    value, gradient = loss(rounded, PARTLY_VOID)
    expected, expected_gradient = loss(rounded.astype(jnp.float32), PARTLY_VOID)
    assert value == expected
    np.testing.assert_array_equal(gradient, expected_gradient.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", SUMS_OVER_PIXELS)
@pytest.mark.parametrize("label", [PARTLY_VOID, SOFT_PARTLY_VOID], ids=["hard", "soft"])
def test_parts_with_the_normalizer_of_the_whole_add_up(name, label):
    count = losses.num_valid_pixels(label)
    loss = jax.jit(SUMS_OVER_PIXELS[name])
    parts = [loss(*part, count) for part in zip(LOGITS[:, None], label[:, None], strict=True)]
    np.testing.assert_allclose(sum(parts), EVERY[name](LOGITS, label)[0], rtol=1e-6)


@pytest.mark.parametrize("name", OF_WHOLE_BATCH | OF_SETS)
def test_parts_count_by_their_pixels(name):
    loss = jax.jit(LOSSES[name])
    whole = losses.num_valid_pixels(PARTLY_VOID)
    for part in zip(LOGITS[:, None], PARTLY_VOID[:, None], strict=True):
        share = float(losses.num_valid_pixels(part[1]) / whole)
        np.testing.assert_allclose(loss(*part, whole), share * loss(*part), rtol=1e-6)
    found = loss(LOGITS, PARTLY_VOID, whole)
    np.testing.assert_allclose(found, EVERY[name](LOGITS, PARTLY_VOID)[0], rtol=1e-6)


@every_loss
def test_gradients_are_the_slopes(loss):
    """Central differences in float64, along one random direction."""
    direction = np.random.default_rng(1).normal(size=LOGITS.shape)
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS, jnp.float64)
        _, gradient = loss(logits, PARTLY_VOID)
        ahead, behind = (loss(logits + side * 1e-6 * direction, PARTLY_VOID)[0] for side in (1, -1))
        assert ahead.dtype == jnp.float64
        np.testing.assert_allclose(
            jnp.sum(gradient * direction), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-8
        )


@every_loss
def test_labels_of_another_size_are_named(loss):
    with pytest.raises(
        DeepLabError, match=r"must have shape \[2, 5, 7\], .*got \[2, 1, 1\].*shrink_labels"
    ):
        loss(LOGITS, LABEL[:, :1, :1])


@soft_losses
def test_soft_labels_of_other_classes_are_named(loss):
    with pytest.raises(DeepLabError, match=r"must have shape \[2, 5, 7, 4\], .*got \[2, 5, 7, 3\]"):
        loss(LOGITS, SOFT[..., :3])


@pytest.mark.parametrize(
    "loss",
    [
        partial(losses.softmax_cross_entropy, class_weights=(1.0, 2.0)),
        partial(losses.focal_loss, alpha=(1.0, 2.0)),
    ],
)
def test_a_wrong_number_of_weights_is_named(loss):
    with pytest.raises(DeepLabError, match=r"class weights must have shape \[4\], got \[2\]"):
        loss(LOGITS, LABEL)
