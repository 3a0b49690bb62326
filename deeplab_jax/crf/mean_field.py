"""Mean-field inference in a dense CRF."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

# Keeps a divisor from 0 where a lattice filters the value 1 to nothing.
SMALLEST = 1e-20


class Filter(Protocol):
    """A linear map of values at N points, about Σ_j k(i, j)·values[j]."""

    def filter(self, values: jax.Array) -> jax.Array:
        """Returns [N, C] of values [N, C]."""


class Kernel(NamedTuple):
    """A normalised filter and its weight: weight · after · filter(before · values).

    Attributes:
      weight: scalar.
      filter: see `Filter`.
      before, after: [N, 1].
    """

    weight: jax.Array
    filter: Filter
    before: jax.Array
    after: jax.Array

    def message(self, values: jax.Array) -> jax.Array:
        """Returns [N, C] of values [N, C]."""
        return self.weight * self.after * self.filter.filter(self.before * values)


def normalized(weight: jax.Array, kernel: Filter, count: int, normalization: str, dtype) -> Kernel:
    """Returns the kernel with the normalisation of `CRFParameters`; count: N."""
    ones = jnp.ones((count, 1), dtype)
    sums = lax.stop_gradient(kernel.filter(ones)) + SMALLEST
    if normalization == "symmetric":
        return Kernel(weight, kernel, lax.rsqrt(sums), lax.rsqrt(sums))
    return Kernel(weight, kernel, ones, 1 / sums)


def mean_field(
    logits: jax.Array,
    kernels: Sequence[Kernel],
    iterations: int,
    compatibility: jax.Array | None = None,
) -> jax.Array:
    """Returns the marginals [N, C] after some parallel updates q ← softmax(logits − μ·Σ_m k_m q).

    Args:
      logits: [N, C], floating point: minus the unary energies, up to a constant a pixel.
      kernels: with their weights.
      iterations: number of updates; the first q is softmax(logits).
      compatibility: μ [C, C], the cost of label l (row) here beside l' (column) there; default
        Potts, 1 − δ.

    Source: Krähenbühl and Koltun, NIPS 2011, algorithm 1.
    """

    def update(marginals: jax.Array, _) -> tuple[jax.Array, None]:
        message = sum(kernel.message(marginals) for kernel in kernels)
        if compatibility is None:
            # The 1 of 1 − δ adds the same to all labels, which softmax does not see.
            return jax.nn.softmax(logits + message), None
        cost = jnp.matmul(message, compatibility.T, precision=lax.Precision.HIGHEST)
        return jax.nn.softmax(logits - cost), None

    start = jax.nn.softmax(logits)
    return lax.scan(update, start, length=iterations)[0]
