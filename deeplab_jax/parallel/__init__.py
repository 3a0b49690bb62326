"""How arrays lie on devices, and how the processes of a job work together."""

from deeplab_jax.parallel.failures import joined_hosts
from deeplab_jax.parallel.hosts import (
    Addresses,
    first_host_first,
    from_first_host,
    is_first_host,
    start_hosts,
    wait_for_hosts,
)
from deeplab_jax.parallel.mesh import (
    batch_sharding,
    check_divisible,
    make_mesh,
    put_batch,
    replicated,
)

__all__ = [
    "Addresses",
    "batch_sharding",
    "check_divisible",
    "first_host_first",
    "from_first_host",
    "is_first_host",
    "joined_hosts",
    "make_mesh",
    "put_batch",
    "replicated",
    "start_hosts",
    "wait_for_hosts",
]
