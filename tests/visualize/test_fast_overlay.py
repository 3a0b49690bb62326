import numpy as np
import pytest

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.visualize import overlay
from deeplab_jax.visualize.class_maps import Overlay


@pytest.mark.parametrize("size", [(1, 1), (33, 40), (701, 1001)])
def test_the_fast_overlay_is_the_plain_one(size):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    # Values without a class are void; class 0 is black and leaves the image.
    class_map = random.choice(np.array([0, 0, 1, 5, 20, 21, 255], np.uint8), size)
    palette = bit_interleaved_palette(21)
    expected = overlay(image, class_map, palette)
    found = Overlay(palette).draw_bgr(np.ascontiguousarray(image[..., ::-1]), class_map)
    assert np.abs(found[..., ::-1].astype(int) - expected).max() <= 1
