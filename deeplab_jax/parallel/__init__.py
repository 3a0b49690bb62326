"""Sharding of arrays over devices, and coordination of the processes of a multi-host job."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".failures": "JobInterrupt PreemptionSync joined_hosts",
        ".hosts": (
            "Addresses check_hosts_agree first_host_first from_first_host is_first_host "
            "latest_of_hosts start_hosts wait_for_hosts"
        ),
        ".mesh": (
            "batch_sharding check_divisible data_size make_mesh replicated sharded_over "
            "spatial_size"
        ),
        ".stalls": "Progress watchdog",
        ".placement": "data_share place put_batch rows_of_this_process state_shardings",
    },
)
