"""GELU, compared with the error function of Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax import ops


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-3)])
def test_gelu_is_accurate_for_negative_inputs(dtype, tolerance):
    inputs = jnp.linspace(-6, -2, 101).astype(dtype)
    found = jax.jit(ops.gelu)(inputs)
    expected = [x / 2 * math.erfc(-x / math.sqrt(2)) for x in np.asarray(inputs, np.float64)]
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=tolerance)
