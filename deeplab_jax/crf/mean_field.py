"""Mean-field inference in a dense CRF, with exact Gaussian sums for small images."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, UInt8

# A parameter: an array inside of `jit`.
Number = float | jax.Array


def position_features(size: Sequence[int], std: Number, dtype: jnp.dtype) -> Float[Array, "2 HW"]:
    """Returns [2, H·W]: x and y divided by the deviation; size: (H, W), std in pixels."""
    row, column = (lax.broadcasted_iota(jnp.int32, size, axis) for axis in (0, 1))
    return jnp.stack([column, row]).reshape(2, -1).astype(dtype) / std


def bilateral_features(
    image: UInt8[Array, "H W 3"], position_std: Number, color_std: Number, dtype: jnp.dtype
) -> Float[Array, "5 HW"]:
    """Returns [5, H·W]: x, y, red, green and blue divided by their deviations.

    Args:
      image: uint8 [H, W, 3].
      position_std: standard deviation of the position, in pixels.
      color_std: standard deviation of the color, in levels of 0..255.
      dtype: dtype of the result.
    """
    position = position_features(image.shape[:2], position_std, dtype)
    color = jnp.moveaxis(image, -1, 0).reshape(3, -1).astype(dtype) / color_std
    return jnp.concatenate([position, color])


# Number of rows of the kernel matrix in memory at a time.
ROWS = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class AllPairs:
    """Kernel exp(−|f_i − f_j|² / 2) of N points, computed some rows at a time.

    Filtering takes N² exponentials and N²·C multiply-adds, and 1 KiB of memory per point.

    Attributes:
      features: [d, N], floating point.
    """

    features: jax.Array

    def filter(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Returns [N, C]: Σ_j k(i, j)·values[j]; values: [N, C]. Features are constants."""
        return _all_pairs(lax.stop_gradient(self.features), values)


@jax.custom_vjp
def _all_pairs(features: Float[Array, "d N"], values: Float[Array, "N C"]) -> Float[Array, "N C"]:
    count = features.shape[1]
    padded = jnp.pad(features, ((0, 0), (0, -count % ROWS)))
    blocks = padded.reshape(features.shape[0], -1, ROWS).swapaxes(0, 1)

    def block_sums(block: jax.Array) -> jax.Array:
        # Differences are accurate where a product would lose small distances in the squares.
        squares = sum((a[:, None] - b) ** 2 for a, b in zip(block, features, strict=True))
        kernel = jnp.exp(-squares / 2)
        return jnp.matmul(kernel, values, precision=lax.Precision.HIGHEST)

    return lax.map(block_sums, blocks).reshape(-1, values.shape[1])[:count]


def _forward(features: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _all_pairs(features, values), features


def _backward(features: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The kernel is symmetric. Storing it for the gradient would take N² numbers.
    return jnp.zeros_like(features), _all_pairs(features, cotangent)


_all_pairs.defvjp(_forward, _backward)


# Added to divisors, which are 0 where a lattice filters the value 1 to 0.
SMALLEST = 1e-20


@runtime_checkable
class Filter(Protocol):
    """Linear map of values at N points, approximately Σ_j k(i, j)·values[j]."""

    def filter(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Maps values [N, C] to [N, C]."""


class Kernel(NamedTuple):
    """Normalized filter and its weight: weight · after · filter(before · values).

    Attributes:
      weight: scalar.
      filter: see `Filter`.
      before, after: [N, 1].
    """

    weight: Number
    filter: Filter
    before: jax.Array
    after: jax.Array

    def message(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Maps values [N, C] to [N, C]."""
        return self.weight * self.after * self.filter.filter(self.before * values)


def normalized(weight: Number, kernel: Filter, count: int, normalization: str, dtype) -> Kernel:
    """Returns the kernel with a normalization of `CRFParameters`; count: N."""
    ones = jnp.ones((count, 1), dtype)
    sums = lax.stop_gradient(kernel.filter(ones)) + SMALLEST
    if normalization == "symmetric":
        return Kernel(weight, kernel, lax.rsqrt(sums), lax.rsqrt(sums))
    return Kernel(weight, kernel, ones, 1 / sums)


def mean_field(
    logits: Float[Array, "N C"],
    kernels: Sequence[Kernel],
    iterations: int,
    compatibility: Float[Array, "C C"] | None = None,
) -> Float[Array, "N C"]:
    """Returns the marginals [N, C] after parallel updates q ← softmax(logits − μ·Σ_m k_m q).

    Args:
      logits: [N, C], floating point: negative unary energies, up to a constant per pixel.
      kernels: filters and their weights.
      iterations: number of updates; the first q is softmax(logits).
      compatibility: μ [C, C], cost of label l (row) at a pixel for l' (column) at another (default:
        Potts, 1 − δ).

    Source: Krähenbühl and Koltun, NIPS 2011, algorithm 1.
    """

    def update(marginals: jax.Array, _) -> tuple[jax.Array, None]:
        message = sum(kernel.message(marginals) for kernel in kernels)
        if compatibility is None:
            # The 1 of 1 − δ adds the same to all labels, which leaves softmax unchanged.
            return jax.nn.softmax(logits + message), None
        cost = jnp.matmul(message, compatibility.T, precision=lax.Precision.HIGHEST)
        return jax.nn.softmax(logits - cost), None

    start = jax.nn.softmax(logits)
    return lax.scan(update, start, length=iterations)[0]
