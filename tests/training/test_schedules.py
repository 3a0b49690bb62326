import math

import jax
import jax.numpy as jnp
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.training.optimizers import (
    cosine_schedule,
    poly_schedule,
    step_schedule,
    with_warmup,
)

POLY = poly_schedule(0.007, 30_000)
STEP = step_schedule(1e-3)
COSINE = cosine_schedule(0.1, 300)


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        (POLY, 0, 0.007),
        (POLY, 15_000, 0.0037512),
        (POLY, 29_999, 0.007 / 30_000**0.9),
        (POLY, 30_000, 0),
        (POLY, 40_000, 0),
        (STEP, 0, 1e-3),
        (STEP, 1999, 1e-3),
        (STEP, 2000, 1e-4),
        (STEP, 3999, 1e-4),
        (STEP, 5999, 1e-5),
        (STEP, 6000, 1e-6),
        (COSINE, 0, 0.1),
        (COSINE, 75, 0.1 * (1 + math.sqrt(0.5)) / 2),
        (COSINE, 100, 0.075),
        (COSINE, 150, 0.05),
        (COSINE, 300, 0),
        (COSINE, 400, 0),
    ],
)
def test_anchors_of_the_papers(schedule, step, rate):
    for one in (schedule, jax.jit(schedule)):
        assert float(one(jnp.int32(step))) == pytest.approx(rate, rel=1e-5, abs=1e-9)
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("schedule", [POLY, STEP, COSINE])
@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (4, 0.5), (9, 1), (10, 1), (250, 1)])
def test_warmup_rises_linearly_and_changes_nothing_later(schedule, step, share):
    warm = with_warmup(schedule, 10)
    assert float(warm(step)) == pytest.approx(share * float(schedule(step)), rel=1e-6)


def test_warmup_in_closed_form():
    """base·(1 − t/T)^p·(t + 1)/W below W: base/W first, the whole rate from step W − 1 on."""
    base, length, warmup = 0.02, 50, 8
    rates = [float(poly_schedule(base, length, 0.9, warmup)(step)) for step in range(length)]
    whole = [base * (1 - step / length) ** 0.9 for step in range(length)]
    share = [min((step + 1) / warmup, 1) for step in range(length)]
    expected = [rate * part for rate, part in zip(whole, share, strict=True)]
    assert rates == pytest.approx(expected, rel=1e-5)
    assert rates[0] == pytest.approx(base / warmup)
    assert rates[warmup - 2] < whole[warmup - 2]
    assert rates[warmup - 1] == pytest.approx(whole[warmup - 1])
    assert min(rates) > 0


def test_a_negative_warmup_is_refused():
    with pytest.raises(DeepLabError, match=r"schedule\.warmup_steps=-1 .* at least 0"):
        with_warmup(POLY, -1)


def test_each_takes_its_own_warmup():
    assert float(poly_schedule(0.1, 100, 0.9, warmup_steps=4)(0)) == pytest.approx(0.025)
    assert float(step_schedule(0.1, 100, 0.5, warmup_steps=4)(1)) == pytest.approx(0.05)
    assert float(cosine_schedule(0.1, 100, warmup_steps=4)(0)) == pytest.approx(0.025)


@pytest.mark.parametrize("length", [10, 41, 61, 2000, 30_000])
def test_compiled_ends_are_exact(length):
    """Optax's compiled schedules give NaN (poly) or drop a step late, for some lengths."""
    poly = jax.jit(poly_schedule(1.0, length))
    drops = jax.jit(step_schedule(1.0, length, 0.5))
    assert [float(poly(length - 1)), float(poly(length))] == pytest.approx([length**-0.9, 0])
    assert [float(drops(k * length - j)) for k in (1, 2) for j in (1, 0)] == [1, 0.5, 0.5, 0.25]
