"""Fixtures of the tests of operations."""

import jax
import pytest


@pytest.fixture
def as_on_gpus(monkeypatch):
    """Traces the implementations for GPUs, so that they run on this machine."""

    def chosen(*operands, default, cuda=None, **_):
        return (cuda or default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    jax.clear_caches()
    yield
    jax.clear_caches()
