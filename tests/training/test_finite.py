import jax.numpy as jnp
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.training.hooks import LAG, FiniteCheck


def metrics(**changes):
    return {"loss": jnp.float32(1), "gradient_norm": jnp.float32(2)} | changes


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_step_is_named_with_delay(name, value):
    check = FiniteCheck()
    check.add(6, metrics())
    check.add(7, metrics(**{name: jnp.float32(value)}))
    for step in range(8, 7 + LAG):
        check.add(step, metrics())
    with pytest.raises(
        DeepLabError, match=rf"^{name} became {value} at step 7; .*base_learning_rate"
    ):
        check.add(7 + LAG, metrics())


def test_every_step_is_checked_before_saving():
    check = FiniteCheck()
    check.add(1, metrics())
    check.add(2, metrics(loss=jnp.float32("nan")))
    with pytest.raises(DeepLabError, match="at step 2"):
        check.finish()


def test_finite_steps_pass():
    check = FiniteCheck()
    for step in range(10):
        check.add(step, metrics())
    check.finish()
    check.finish()
