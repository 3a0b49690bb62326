"""Means and covariances of the channels that enter each convolution."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.compression.calibration import input_statistics
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import DeepLab

# Of what is taken for noise at least, relative to each channel's variance.
LEAST_SHRINKAGE = 1e-4
# Variance of a channel that is constant but for single precision, relative to its square.
ROUNDING = 1e-10


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of a convolution's inputs over all pixels.

    Attributes:
      mean: of each channel, [C].
      covariance: [C, C].
      count: pixels that they were measured on.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @property
    def variance(self) -> np.ndarray:
        """Of each channel, [C]."""
        return np.diagonal(self.covariance)

    @property
    def shrunk_covariance(self) -> np.ndarray:
        """The covariance, the nearer to its diagonal the fewer pixels a channel there were."""
        channels = len(self.mean)
        share = max(LEAST_SHRINKAGE, channels / (channels + self.count))
        shrunk = (1 - share) * self.covariance
        np.fill_diagonal(shrunk, self.variance)
        return shrunk


def measure(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns the moments of every convolution's inputs over images.

    Args:
      model, variables: of floating-point numbers.
      images: batches uint8 [N, H, W, C], all of one shape.

    Raises:
      DeepLabError: there is no image.
    """
    function = input_statistics(model, _of_one_batch)
    total: Any = None
    count = 0
    for batch in images:
        found = jax.tree.map(np.float64, jax.device_get(function(variables, batch)))
        # About zero, in double precision: these can be added up.
        sums = {
            path: (mean, covariance + np.outer(mean, mean), pixels)
            for path, (mean, covariance, pixels) in found.items()
        }
        total = sums if total is None else jax.tree.map(np.add, total, sums)
        count += 1
    if total is None:
        raise DeepLabError("pruning needs at least one image to measure channels on")
    return {"/".join(path): _moments(*sums, count) for path, sums in total.items()}


def _of_one_batch(inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean, [c], and covariance, [c, c], of the channels, and the number of pixels."""
    pixels = inputs.reshape(-1, inputs.shape[-1])
    mean = pixels.mean(0)
    products = jnp.dot((pixels - mean).T, pixels - mean, precision=jax.lax.Precision.HIGHEST)
    return mean, products / len(pixels), jnp.float32(len(pixels))


def _moments(mean: np.ndarray, products: np.ndarray, pixels: np.ndarray, batches: int) -> Moments:
    mean = mean / batches
    covariance = products / batches - np.outer(mean, mean)
    # What is left of a constant channel after rounding is no variance.
    constant = np.diagonal(covariance) <= ROUNDING * mean**2
    covariance[constant] = covariance[:, constant] = 0
    return Moments(mean, covariance, round(float(pixels)))
