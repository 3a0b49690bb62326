import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.models.preprocessing import preprocess
from deeplab_jax.pixels import PREPROCESSINGS

PIXEL = np.array([255, 0, 51], np.uint8).reshape(1, 1, 1, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minus_one_one", [1, -1, -0.6]),
        ("mean", [131.85, -115.9, -52.06]),
        ("vgg_mean", [131.32, -116.78, -52.94]),
        ("mean_std", [0.515 / 0.229, -0.456 / 0.224, -0.206 / 0.225]),
        ("caffe_bgr", [51 - 104.008, -116.669, 255 - 122.675]),
        ("none", [255, 0, 51]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_values(name, expected, dtype):
    found = preprocess(jnp.asarray(PIXEL.astype(dtype)), name, jnp.float32)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found.reshape(3), expected, rtol=1e-6)


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_bfloat16_is_rounded_last(name):
    exact = preprocess(PIXEL, name, jnp.float32)
    rounded = preprocess(PIXEL, name, jnp.bfloat16)
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))
