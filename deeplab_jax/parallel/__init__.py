"""How arrays lie on devices."""

from deeplab_jax.parallel.mesh import (
    batch_sharding,
    check_divisible,
    make_mesh,
    put_batch,
    replicated,
)

__all__ = ["batch_sharding", "check_divisible", "make_mesh", "put_batch", "replicated"]
