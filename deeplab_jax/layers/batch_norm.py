"""Batch normalization over groups of images, and over images on several devices."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.errors import DeepLabError


def refuse_single_values(shape: tuple[int, ...], group: int, layer: str) -> None:
    """Checks that batch normalization in training receives more than one value per channel.

    A single value would be normalized to 0 in training, but not in evaluation.

    Args:
      shape: shape [N, …, C] of the array to normalize.
      group: number of images that are normalized together; 0: all N.
      layer: path of the layer, for the error message.

    Raises:
      DeepLabError: there is only one value per channel.
    """
    if (group or shape[0]) * math.prod(shape[1:-1]) == 1:
        raise DeepLabError(
            f"{layer} cannot be trained on one value per channel ({_cause(shape[0], group)}): "
            "batch normalization would map this value to 0 in training, but not in evaluation. "
            "Normalize at least 2 images together, preferably 4 or more: increase "
            "training.batch_size or model.ghost_batch_size, or reduce training.accumulation_steps. "
            "Alternatively, set model.frozen_batch_norm=True or, for image pooling, "
            "model.image_pooling='none'"
        )


def _cause(images: int, group: int) -> str:
    return f"model.ghost_batch_size={group}" if group else f"a batch of {images}"


class ShardedBatchNorm(nn.BatchNorm):
    """Batch normalization whose backward pass sums only two values per channel over devices.

    Variables and outputs are the same as in `nn.BatchNorm`. The two values are the sum of the
    output gradient, and the sum of its product with the centered input. The gradients of mean,
    variance, scale and bias are computed from them. Automatic differentiation would require a third
    sum.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Normalizes an array [N, …, C]."""
        shape, dtype = x.shape[-1:], jnp.promote_types(jnp.float32, x.dtype)
        zeros, ones = jnp.zeros, jnp.ones
        average = self.variable("batch_stats", "mean", zeros, shape, self.param_dtype)
        spread = self.variable("batch_stats", "var", ones, shape, self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        mean, variance = average.value, spread.value
        if not self.use_running_average:
            values, axes = x.astype(dtype), tuple(range(x.ndim - 1))
            # As in Flax: one pass over the values, and variances of at least 0.
            mean = values.mean(axes)
            variance = jnp.maximum(jnp.square(values).mean(axes) - jnp.square(mean), 0)
            if not self.is_initializing():
                for old, new in ((average, mean), (spread, variance)):
                    old.value = self.momentum * old.value + (1 - self.momentum) * new
        slope = jax.lax.rsqrt(variance + self.epsilon) * scale
        return _normalize(x.astype(dtype), mean, slope, bias).astype(self.dtype)


@jax.custom_vjp
def _normalize(values: jax.Array, mean: jax.Array, slope: jax.Array, bias: jax.Array) -> jax.Array:
    """Computes (values − mean)·slope + bias for every channel of [N, …, C]."""
    return (values - mean) * slope + bias


def _normalize_forward(
    values: jax.Array, mean: jax.Array, slope: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _normalize(values, mean, slope, bias), (values, mean, slope)


def _normalize_backward(
    operands: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
    values, mean, slope = operands
    axes = tuple(range(values.ndim - 1))
    total, product = cotangent.sum(axes), (cotangent * (values - mean)).sum(axes)
    return cotangent * slope, -slope * total, product, total


_normalize.defvjp(_normalize_forward, _normalize_backward)


class GroupedBatchNorm(nn.BatchNorm):
    """Batch normalization over groups of consecutive images instead of the whole batch.

    The variables are the same as in `nn.BatchNorm`. The moving averages are updated with the means
    and variances of the groups, averaged over the groups. If each group is on one device, no
    communication is needed.

    Attributes:
      group_size: number of images per group.

    Source: arXiv 1705.08741, section 4 ("ghost" batches).
    """

    group_size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Normalizes an array [N, …, C].

        Raises:
          DeepLabError: `group_size` does not divide N in training.
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
        # As in Flax: one pass over the values, and variances of at least 0.
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
            f"model.ghost_batch_size={size} does not divide the batch of {x.shape[0]} images; "
            "use a divisor of that number, or 0 to normalize all images together"
        )
    return x.reshape(-1, size, *x.shape[1:])
