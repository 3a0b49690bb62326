"""Private functions of JAX. No other module of this package imports from `jax._src`.

A new version of JAX may move these functions. The functions of this module were tested with jax
0.10.2 (all tests), with 0.11.2 (a training step on a GPU), and with 0.12.0 (interrupting a
training run, and training on eight devices).
"""

from typing import Any

from jax._src import distributed, xla_bridge


def coordination_client() -> Any:
    """Returns the client of JAX's coordination service (barriers and a key-value store)."""
    return distributed.global_state.client


def backends_are_initialized() -> bool:
    """Returns whether JAX has initialized its backends, after which processes cannot join a job."""
    return xla_bridge.backends_are_initialized()
