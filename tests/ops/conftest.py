"""What the tests of operations share."""

import jax
import pytest


@pytest.fixture
def as_on_gpus(monkeypatch):
    """Traces what GPUs get, to be run here."""

    def chosen(*operands, default, cuda=None, **_):
        return (cuda or default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    jax.clear_caches()
    yield
    jax.clear_caches()
