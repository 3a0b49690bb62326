"""Which parts of JAX without a public interface does this package use?

Nothing else imports from `jax._src`. Tried with jax 0.10.2 (all tests), 0.11.2 (a training step on
a GPU) and 0.12.0 (interruption and eight devices); a new version may move these names.
"""

from typing import Any

from jax._src import distributed, xla_bridge


def coordination_client() -> Any:
    """Returns the client of the service by which the processes of a job meet and share values."""
    return distributed.global_state.client


def backends_are_initialized() -> bool:
    """Returns whether JAX has initialized its backends, after which processes cannot join."""
    return xla_bridge.backends_are_initialized()
