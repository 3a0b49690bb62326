import numpy as np
import pytest

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.visualize import overlay
from deeplab_jax.visualize.class_maps import CONTOUR_COLOR, Overlay


def reference(image, class_map, palette, opacity):
    """Blends in floating point; the line is one pixel wide plus one per 1200 of the diagonal."""
    colors = np.array([*palette, *[(0, 0, 0)] * (256 - len(palette))])[class_map]
    weight = np.where((colors == 0).all(-1), 0, opacity)[..., None]
    blended = image * (1 - weight) + colors * weight
    line = np.zeros(class_map.shape, bool)
    line[:-1] |= class_map[1:] != class_map[:-1]
    line[:, :-1] |= class_map[:, 1:] != class_map[:, :-1]
    for _ in range(round(np.hypot(*class_map.shape) / 1200)):
        line[:-1] |= line[1:]
        line[:, :-1] |= line[:, 1:]
    blended[line] = 0.25 * blended[line] + 0.75 * np.array(CONTOUR_COLOR)
    return np.round(blended)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("size", [(1, 1), (33, 40), (701, 1001)])
def test_the_overlay_blends_the_colors_of_all_classes_but_a_black_one(size, dtype):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    # Values without a class are void; class 0 is black and leaves the image.
    class_map = random.choice(np.array([0, 0, 1, 5, 20, 21, 255], dtype), size)
    palette = bit_interleaved_palette(21)
    found = overlay(image, class_map, palette)
    assert np.abs(found - reference(image, class_map, palette, 0.55)).max() <= 1
    reverse = Overlay([color[::-1] for color in palette])
    as_bgr = reverse.draw(np.ascontiguousarray(image[..., ::-1]), class_map)
    assert np.array_equal(as_bgr[..., ::-1], found)
