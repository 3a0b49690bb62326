"""Gaussian kernels summed over all pairs of points."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

# Rows of the kernel matrix that exist at a time.
ROWS = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class AllPairs:
    """The kernel exp(−|f_i − f_j|² / 2) of N points, never held as a whole.

    Takes N² exponentials and N²·C multiply-adds a filtering, and 1 KiB a point of memory.

    Attributes:
      features: [d, N], floating point.
    """

    features: jax.Array

    def filter(self, values: jax.Array) -> jax.Array:
        """Returns [N, C]: Σ_j k(i, j)·values[j]; values: [N, C]. Features are constants."""
        return _all_pairs(lax.stop_gradient(self.features), values)


@jax.custom_vjp
def _all_pairs(features: jax.Array, values: jax.Array) -> jax.Array:
    count = features.shape[1]
    padded = jnp.pad(features, ((0, 0), (0, -count % ROWS)))
    blocks = padded.reshape(features.shape[0], -1, ROWS).swapaxes(0, 1)

    def block_sums(block: jax.Array) -> jax.Array:
        # Differences, not a product: squares of the features would swallow small distances.
        squares = sum((a[:, None] - b) ** 2 for a, b in zip(block, features, strict=True))
        kernel = jnp.exp(-squares / 2)
        return jnp.matmul(kernel, values, precision=lax.Precision.HIGHEST)

    return lax.map(block_sums, blocks).reshape(-1, values.shape[1])[:count]


def _forward(features: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _all_pairs(features, values), features


def _backward(features: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The kernel is symmetric; saving its rows for the gradient would take N² numbers.
    return jnp.zeros_like(features), _all_pairs(features, cotangent)


_all_pairs.defvjp(_forward, _backward)
