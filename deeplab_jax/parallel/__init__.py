"""How arrays lie on devices, and how the processes of a job work together."""

from deeplab_jax.parallel.failures import PreemptionSync, joined_hosts
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
    data_size,
    make_mesh,
    replicated,
    sharded_over,
    space_size,
)
from deeplab_jax.parallel.placement import (
    data_share,
    place,
    put_batch,
    rows_of_this_process,
    state_shardings,
)

__all__ = [
    "Addresses",
    "PreemptionSync",
    "batch_sharding",
    "check_divisible",
    "data_share",
    "data_size",
    "first_host_first",
    "from_first_host",
    "is_first_host",
    "joined_hosts",
    "make_mesh",
    "place",
    "put_batch",
    "replicated",
    "rows_of_this_process",
    "sharded_over",
    "space_size",
    "start_hosts",
    "state_shardings",
    "wait_for_hosts",
]
