"""Losses for 255, 256 and 300 classes compared with NumPy; the void value depends on the number.

Up to 255 classes void is 255; above, 255 is a class like any other and void is 65535.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax import config as configs
from deeplab_jax import losses, ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import MAX_CLASSES, VOID_LABEL, label_dtype, void_label, void_of
from deeplab_jax.losses.targets import class_shares, valid_mask
from deeplab_jax.models import Architecture
from deeplab_jax.training.loss import Outputs, make_objective

SIZE = (2, 5, 7)
COUNTS = (255, 256, 300)
counts = pytest.mark.parametrize("count", COUNTS)


def sample(count, dtype=None):
    """Returns logits and a label with void, the last class and, where there is one, class 255."""
    random = np.random.default_rng(count)
    logits = random.normal(0, 3, (*SIZE, count)).astype(np.float32)
    label = random.integers(0, count, SIZE).astype(dtype or label_dtype(count))
    label[0, 0, :3] = void_label(count)
    label[0, 1, :2] = count - 1
    label[1, 2, :4] = min(count - 1, 255)
    return logits, label


def probabilities(logits):
    odds = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def known_of(logits, label):
    """Returns the probabilities [P, C] and the classes [P] of the pixels that are not void."""
    known = label != (65535 if logits.shape[-1] > 255 else 255)
    return probabilities(logits)[known], label[known].astype(int)


def own(probability, classes):
    return probability[np.arange(len(classes)), classes]


def cross_entropy(logits, label):
    return -np.log(own(*known_of(logits, label))).mean()


def focal(logits, label):
    right = own(*known_of(logits, label))
    return (-((1 - right) ** 2) * np.log(right)).mean()


def smoothed(logits, label):
    probability, classes = known_of(logits, label)
    rest = np.log(probability).mean(-1)
    return -(0.9 * np.log(own(probability, classes)) + 0.1 * rest).mean()


def dice(logits, label):
    probability, classes = known_of(logits, label)
    return np.mean(
        [
            1
            - (2 * probability[classes == one, one].sum() + 1)
            / (probability[:, one].sum() + (classes == one).sum() + 1)
            for one in np.unique(classes)
        ]
    )


def jaccard_loss(truth, wrong):
    union = (truth | wrong).sum()
    return 1 - (truth & ~wrong).sum() / union if union else 0.0


def lovasz(logits, label):
    """The Lovász extension by its definition: Jaccard losses of the sets of largest errors."""
    probability, classes = known_of(logits, label)
    values = []
    for one in np.unique(classes):
        truth = classes == one
        errors = np.abs(truth - probability[:, one])
        order = np.argsort(-errors)
        wrong, last, value = np.zeros(len(truth), bool), 0.0, 0.0
        for pixel in order:
            wrong[pixel] = True
            loss = jaccard_loss(truth, wrong)
            value += errors[pixel] * (loss - last)
            last = loss
        values.append(value)
    return np.mean(values)


def hard_pixels(logits, label):
    losses_of = -np.log(own(*known_of(logits, label)))
    kept = int(0.3 * label.size)
    return np.sort(losses_of)[-kept:].mean()


EXPECTED = {
    "cross_entropy": (losses.softmax_cross_entropy, cross_entropy),
    "smoothed": (partial(losses.softmax_cross_entropy, label_smoothing=0.1), smoothed),
    "focal": (losses.focal_loss, focal),
    "dice": (losses.dice_loss, dice),
    "lovasz": (losses.lovasz_softmax, lovasz),
    "hard_pixels": (
        partial(losses.hard_pixel_cross_entropy, fraction=0.3),
        hard_pixels,
    ),
}


@counts
@pytest.mark.parametrize("name", EXPECTED)
def test_losses_agree_with_plain_numpy(name, count):
    logits, label = sample(count)
    loss, expected = EXPECTED[name]
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, label)
    np.testing.assert_allclose(value, expected(logits, label), rtol=2e-5)
    void = label == void_label(count)
    assert void.sum() == 3
    assert not np.any(np.asarray(gradient)[void])
    if name in ("cross_entropy", "focal", "dice"):
        assert np.all(np.any(np.asarray(gradient)[~void], axis=-1))


@counts
def test_the_dtype_of_a_label_does_not_matter_where_it_holds_void(count):
    logits, label = sample(count)
    expected = losses.softmax_cross_entropy(logits, label)
    assert losses.softmax_cross_entropy(logits, label.astype(np.int32)) == expected
    assert losses.softmax_cross_entropy(logits, label.astype(np.uint16)) == expected


def test_a_label_that_cannot_hold_void_is_refused():
    logits, label = sample(300)
    narrow = jnp.asarray(label % 256, jnp.uint8)
    for loss, _ in EXPECTED.values():
        with pytest.raises(DeepLabError, match=r"300 classes must be uint16.*65535.*uint8"):
            loss(logits, narrow)


@counts
def test_class_weights_apply_to_their_class(count):
    logits, label = sample(count)
    weights = np.linspace(0.5, 2, count)
    probability, classes = known_of(logits, label)
    expected = -(weights[classes] * np.log(own(probability, classes))).mean()
    found = losses.softmax_cross_entropy(logits, label, class_weights=weights.tolist())
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@counts
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_rows_at_once_are_the_whole(count, rows):
    """Blocks of rows that do not divide the label are filled up with void."""
    logits, label = sample(count)
    scores = logits[:, :3, :4]
    resized = ops.resize_bilinear(jnp.asarray(scores), SIZE[1:])
    expected = cross_entropy(np.asarray(resized), label)
    found = losses.resized_cross_entropy(scores, label, rows=rows)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@counts
def test_shrunk_labels_keep_dtype_and_void(count):
    logits, label = sample(count)
    maps = {"scores": logits[:, :3, :4]}
    shrunk = np.asarray(losses.shrink_labels(label, (3, 4)))
    assert shrunk.dtype == label.dtype
    assert np.array_equal(shrunk, label[:, [0, 2, 4]][:, :, [0, 2, 4, 6]])
    expected = cross_entropy(maps["scores"], shrunk)
    found = losses.multi_scale_cross_entropy(maps, label, label)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@counts
def test_distillation_leaves_void_out(count):
    logits, label = sample(count)
    teacher = np.roll(logits, 1, axis=-1)
    known = label != void_label(count)
    p, q = probabilities(teacher)[known], probabilities(logits)[known]
    expected = (p * (np.log(p) - np.log(q))).sum(-1).mean()
    np.testing.assert_allclose(
        losses.distillation_loss(logits, teacher, label), expected, rtol=2e-5
    )


@counts
def test_pixels_are_counted_and_masked_by_the_number_of_classes(count):
    _, label = sample(count)
    wide = label.astype(np.int32)
    for given in (label, wide):
        assert float(losses.num_valid_pixels(given, count)) == given.size - 3
        shares = np.asarray(class_shares(given, count))
        assert shares.sum() == given.size - 3
        assert np.array_equal(
            shares.argmax(-1)[label != void_label(count)], label[label != void_label(count)]
        )
        masked = np.asarray(losses.masked_label(given, given != count - 1, count))
        assert masked.dtype == given.dtype
        assert np.all(
            (masked == void_label(count)) == ((given == count - 1) | (given == void_label(count)))
        )
    # The pipeline's labels need no number: their dtype tells.
    assert float(losses.num_valid_pixels(label)) == label.size - 3
    assert np.array_equal(valid_mask(label), valid_mask(wide, count))


@counts
@pytest.mark.parametrize("parts", [1, 2])
def test_objectives_of_batch_parts_add_up(count, parts):
    """As in gradient accumulation, each part is divided by the number of pixels of the batch."""
    logits, label = sample(count)
    objective = make_objective(
        configs.load("shapes:cpu").loss, Architecture("mobilenet_v2", num_classes=count)
    )
    given = zip(np.split(logits, parts), np.split(label, parts), strict=True)
    found = sum(objective(Outputs(part, {}), one, label, jnp.int32(0)) for part, one in given)
    np.testing.assert_allclose(found, cross_entropy(logits, label), rtol=2e-5)


def test_the_rule():
    assert [label_dtype(count) for count in (1, 255, 256, MAX_CLASSES)] == [
        *[np.uint8] * 2,
        *[np.uint16] * 2,
    ]
    assert [void_label(count) for count in (2, 255, 256, MAX_CLASSES)] == [255, 255, 65535, 65535]
    assert (VOID_LABEL, MAX_CLASSES) == (255, 65535)
    with pytest.raises(DeepLabError, match=r"num_classes=65536 .*65535"):
        label_dtype(65536)


def test_void_of_an_array():
    assert void_of(np.zeros(1, np.uint8)) == void_of(np.zeros(1, np.int64)) == 255
    assert void_of(np.zeros(1, np.uint16)) == 65535
    # Few classes in a wide array: void stays 255.
    assert void_of(np.zeros(1, np.uint16), 21) == void_of(np.zeros(1, np.int32), 255) == 255
    assert void_of(np.zeros(1, np.int32), 256) == 65535
    for dtype, count in ((np.uint8, 256), (np.int16, 300), (np.int8, 2)):
        with pytest.raises(DeepLabError, match="because void is"):
            void_of(np.zeros(1, dtype), count)
