"""Mean-field inference in a dense CRF, and exact Gaussian filtering for small images."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from deeplab_jax.arrays import Array, Float, UInt8

# Parameter of the CRF, which may be traced.
Number = float | jax.Array


def position_features(size: Sequence[int], std: Number, dtype: jnp.dtype) -> Float[Array, "2 HW"]:
    """Returns the coordinates x and y of all pixels, divided by `std` pixels, as [2, H·W]."""
    row, column = (lax.broadcasted_iota(jnp.int32, size, axis) for axis in (0, 1))
    return jnp.stack([column, row]).reshape(2, -1).astype(dtype) / std


def bilateral_features(
    image: UInt8[Array, "H W 3"], position_std: Number, color_std: Number, dtype: jnp.dtype
) -> Float[Array, "5 HW"]:
    """Returns x, y, red, green and blue of all pixels, divided by their standard deviations.

    Args:
      image: uint8 [H, W, 3].
      position_std: standard deviation of the position, in pixels.
      color_std: standard deviation of the color, in levels of 0..255.
      dtype: dtype of the result.

    Returns:
      [5, H·W].
    """
    position = position_features(image.shape[:2], position_std, dtype)
    color = jnp.moveaxis(image, -1, 0).reshape(3, -1).astype(dtype) / color_std
    return jnp.concatenate([position, color])


# Number of rows of the kernel matrix that are in memory at a time.
ROWS = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class AllPairs:
    """Exact filter over all pairs of N points with the kernel k(i, j) = exp(−|f_i − f_j|² / 2).

    Filtering values [N, C] takes N² exponentials, N²·C multiply-adds and 1 KiB of memory per point.

    Attributes:
      features: positions f of the points, [d, N], floating point.
    """

    features: jax.Array

    def filter(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Filters with the Gaussian kernel k: returns Σ_j k(i, j)·values[j] for each point i.

        The gradients with respect to the positions of the points are 0.

        Args:
          values: [N, C], floating point.
        """
        return _all_pairs(lax.stop_gradient(self.features), values)


@jax.custom_vjp
def _all_pairs(features: Float[Array, "d N"], values: Float[Array, "N C"]) -> Float[Array, "N C"]:
    count = features.shape[1]
    padded = jnp.pad(features, ((0, 0), (0, -count % ROWS)))
    blocks = padded.reshape(features.shape[0], -1, ROWS).swapaxes(0, 1)

    def block_sums(block: jax.Array) -> jax.Array:
        # This is accurate for small distances, for which |a|² − 2·a·b + |b|² loses digits.
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


# Added to divisors, because a lattice may filter the value 1 to 0.
SMALLEST = 1e-20


@runtime_checkable
class Filter(Protocol):
    """Filter of values at N points.

    It computes or approximates Σ_j k(i, j)·values[j] for each point i, where k is its kernel.
    """

    def filter(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Returns the filtered values, [N, C]."""


class Kernel(NamedTuple):
    """Normalized and weighted filter: weight · after · filter(before · values).

    Attributes:
      weight: weight of the kernel in the CRF, a scalar.
      filter: Gaussian filter without normalization.
      before, after: normalization factor of each point before and after filtering, [N, 1].
    """

    weight: Number
    filter: Filter
    before: jax.Array
    after: jax.Array

    def message(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Computes the messages of mean-field inference.

        Args:
          values: marginals of all pixels, [N, C].

        Returns:
          The message to each pixel, [N, C].
        """
        return self.weight * self.after * self.filter.filter(self.before * values)


def normalized(
    weight: Number, kernel: Filter, count: int, normalization: str, dtype: DTypeLike
) -> Kernel:
    """Returns a filter with its weight and normalization factors, as a `Kernel`.

    Args:
      weight: weight of the kernel.
      kernel: Gaussian filter without normalization.
      count: number of points N.
      normalization: `after` divides the filtered value of each point i by Σ_j k(i, j), which the
        filter returns if all values are 1; `symmetric` divides by the square root of this sum
        before and after filtering.
      dtype: dtype of the normalization factors.
    """
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
    """Computes marginals by mean-field updates q ← softmax(logits − μ·Σ_m k_m q) of all pixels.

    Args:
      logits: [N, C], floating point: negative unary energies, up to a constant per pixel.
      kernels: normalized and weighted filters k_m.
      iterations: number of updates; the initial q is softmax(logits).
      compatibility: μ, [C, C], cost of assigning label l (row) to a pixel if another pixel has
        label l' (column) (default: Potts model, 1 − δ).

    Returns:
      Marginals q, [N, C].

    Source: Krähenbühl and Koltun, NIPS 2011, algorithm 1.
    """

    def update(marginals: jax.Array, _: None) -> tuple[jax.Array, None]:
        message = sum(kernel.message(marginals) for kernel in kernels)
        if compatibility is None:
            # In 1 − δ, the 1 adds the same cost to all labels, which softmax ignores.
            return jax.nn.softmax(logits + message), None
        cost = jnp.matmul(message, compatibility.T, precision=lax.Precision.HIGHEST)
        return jax.nn.softmax(logits - cost), None

    start = jax.nn.softmax(logits)
    return lax.scan(update, start, length=iterations)[0]
