import pytest

from deeplab_jax.training.hooks import (
    PARTING,
    Interval,
    curves_part,
    intervals,
    validations_since_best,
)

NAN = float("nan")


def rows(*evaluations):
    """Returns the rows of a run from pairs (training loss or None, validation)."""
    found = []
    for number, (loss, mean_iou) in enumerate(evaluations, start=1):
        if loss is not None:
            # Two rows whose mean is the loss.
            found += [{"step": 10 * number - half, "loss": loss + half - 2.5} for half in (2, 3)]
        found.append(
            {"step": 10 * number, "validation_mean_iou": mean_iou, "validation_pixel_accuracy": 0.5}
        )
    return found


def test_intervals():
    found = intervals(rows((2.0, 0.25), (None, 0.5), (1.0, 0.75)))
    assert found == [Interval(10, 0.25, 2.0), Interval(20, 0.5, None), Interval(30, 0.75, 1.0)]


@pytest.mark.parametrize(
    ("scores", "since"),
    [
        ([], 0),
        ([0.1], 0),
        ([0.1, 0.2], 0),
        ([0.3, 0.2, 0.25], 2),
        ([0.3, 0.4, 0.4], 1),
        ([NAN, 0.1, 0.2, 0.3], 0),
        ([NAN, 0.3, 0.2, 0.1], 2),
        ([0.3, NAN, 0.2], 2),
        ([NAN, NAN, NAN], 2),
    ],
)
def test_validations_since_the_best(scores, since):
    assert validations_since_best(rows(*[(1.0, score) for score in scores])) == since


SCORES = (0.2, 0.5, 0.45, 0.4, 0.44)
FALLING = (5.0, 4.0, 3.0, 2.0, 1.0)


def test_overfitting_is_reported_once():
    pairs = list(zip(FALLING, SCORES, strict=True))
    told = [curves_part(rows(*pairs[:count])) for count in range(len(pairs) + 1)]
    assert [bool(text) for text in told] == [False] * (1 + 1 + PARTING) + [True]
    assert "fell from 4 to 1, but the best validation mean IoU (0.5000) was at step 20" in told[-1]
    assert curves_part(rows(*pairs, (0.5, 0.41))) is None


@pytest.mark.parametrize(
    "losses", [(5.0, 4.0, 3.0, 3.5, 1.0), (5.0, 4.0, None, 2.0, 1.0), (5.0, 4.0, 4.0, 2.0, 1.0)]
)
def test_a_training_loss_that_does_not_fall_is_not_overfitting(losses):
    assert curves_part(rows(*zip(losses, SCORES, strict=True))) is None


def test_nan_scores_are_not_overfitting():
    assert curves_part(rows(*zip(FALLING, [NAN] * 5, strict=True))) is None
    pairs = zip(FALLING, (NAN, 0.5, 0.45, 0.4, 0.44), strict=True)
    assert "(0.5000) was at step 20" in curves_part(rows(*pairs))
