"""Batch normalisation whose statistics are those of a group of images."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.errors import DeepLabError


def refuse_single_values(shape: tuple[int, ...], group: int, layer: str) -> None:
    """Refuses to train where batch statistics would be those of one value per channel.

    Args:
      shape: [N, …, C] of what is normalized.
      group: images that are normalized together; 0: all N.
      layer: its path, for the message.

    Raises:
      DeepLabError: there is one value per channel, so every output would be 0 + bias in training
        and something else in evaluation.
    """
    if (group or shape[0]) * math.prod(shape[1:-1]) == 1:
        raise DeepLabError(
            f"{layer} cannot be trained on one value per channel ({_cause(shape[0], group)}): "
            "batch normalization makes it exactly 0, but not in evaluation; normalize at least 2 "
            "images together, better 4 or more (training.batch_size over "
            "training.accumulation_steps, model.batch_norm_group), or give "
            "model.frozen_batch_norm=True or, for image pooling, model.image_pooling='none'"
        )


def _cause(images: int, group: int) -> str:
    return f"model.batch_norm_group={group}" if group else f"a batch of {images}"


class GroupedBatchNorm(nn.BatchNorm):
    """Normalises each group of neighbouring images by its own statistics.

    Variables are those of `nn.BatchNorm`; the moving averages take the mean of the groups'
    means and variances. Where a group is what one device holds, statistics cost no communication.

    Attributes:
      group_size: images a group.

    Source: arXiv 1705.08741, section 4 ("ghost" batches).
    """

    group_size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, …, C] to the same shape; N must divide into groups unless averages are used.

        Raises:
          DeepLabError: N does not.
        """
        shape, dtype = x.shape[-1:], jnp.promote_types(jnp.float32, x.dtype)
        zeros, ones = jnp.zeros, jnp.ones
        mean = self.variable("batch_stats", "mean", zeros, shape, self.param_dtype)
        variance = self.variable("batch_stats", "var", ones, shape, self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if self.use_running_average:
            return self._normalized(x, mean.value, variance.value, scale, bias)
        groups = _groups(x, self.group_size)
        inner = tuple(range(1, groups.ndim - 1))
        values = groups.astype(dtype)
        means = values.mean(inner, keepdims=True)
        # As in Flax: one pass over the values, and never below 0.
        variances = jnp.square(values).mean(inner, keepdims=True) - jnp.square(means)
        variances = jnp.maximum(variances, 0)
        if not self.is_initializing():
            for average, seen in ((mean, means), (variance, variances)):
                seen = seen.reshape(-1, *shape).mean(0)
                average.value = self.momentum * average.value + (1 - self.momentum) * seen
        return self._normalized(groups, means, variances, scale, bias).reshape(x.shape)

    def _normalized(
        self,
        values: jax.Array,
        mean: jax.Array,
        variance: jax.Array,
        scale: jax.Array,
        bias: jax.Array,
    ) -> jax.Array:
        slope = jax.lax.rsqrt(variance + self.epsilon) * scale
        return jnp.asarray((values - mean) * slope + bias, self.dtype)


def _groups(x: jax.Array, size: int) -> jax.Array:
    """Reshapes [N, …] to [N/size, size, …]."""
    if x.shape[0] % size:
        raise DeepLabError(
            f"model.batch_norm_group={size} does not divide the {x.shape[0]} images that are "
            "normalised together; give a divisor of them, or 0 for all"
        )
    return x.reshape(-1, size, *x.shape[1:])
