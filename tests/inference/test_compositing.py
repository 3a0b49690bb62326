"""Soft masks and backgrounds, on closed forms."""

import math

import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import composite, feathered, soft_mask


def test_soft_masks_add_the_classes_up():
    probabilities = np.array([[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]], np.float16)
    np.testing.assert_allclose(soft_mask(probabilities, (1, 2)), [[0.8, 0.0]], atol=1e-3)
    assert soft_mask(probabilities, range(3)).max() <= 1
    assert soft_mask(probabilities, [2]).dtype == np.float32


@pytest.mark.parametrize("classes", [(), (3,), (-1, 0)])
def test_unknown_classes_are_named(classes):
    with pytest.raises(DeepLabError, match=r"class indices in 0\.\.2"):
        soft_mask(np.zeros((2, 2, 3), np.float32), classes)


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_a_straight_edge_becomes_the_normal_integral(width):
    mask = np.zeros((9, 41), bool)
    mask[:, 20:] = True
    alpha = feathered(mask, width)
    # Pixel centres lie half a pixel beside the edge.
    distance = np.arange(41) - 19.5
    expected = [0.5 * (1 + math.erf(d / (width * math.sqrt(2)))) for d in distance]
    np.testing.assert_allclose(alpha, np.tile(expected, (9, 1)), atol=0.01)
    assert alpha.dtype == np.float32


def test_borders_and_width_0_change_nothing():
    np.testing.assert_array_equal(feathered(np.ones((5, 7)), 3.0), 1)
    mask = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    np.testing.assert_array_equal(feathered(mask, 0), mask)
    with pytest.raises(DeepLabError, match="must be 0 or more"):
        feathered(mask, -1.0)


def test_composites_are_weighted_means():
    image, background = np.full((1, 4, 3), 200, np.uint8), np.full((1, 4, 3), 101, np.uint8)
    alpha = np.array([[0, 0.25, 0.5, 1]])
    mixed = composite(image, background, alpha)
    # 125.75 and 150.5, halves to even.
    assert mixed[0, :, 0].tolist() == [101, 126, 150, 200]
    assert mixed.dtype == np.uint8
    colored = composite(image, (0, 100, 255), alpha)
    assert colored[0, 0].tolist() == [0, 100, 255]
    assert colored[0, 2].tolist() == [100, 150, 228]


@pytest.mark.parametrize(
    ("background", "alpha"),
    [(np.zeros((4, 5, 3), np.uint8), (4, 4)), (np.zeros((4, 4, 3), np.uint8), (4, 5))],
)
def test_sizes_must_agree(background, alpha):
    with pytest.raises(DeepLabError, match="must have the same height and width"):
        composite(np.zeros((4, 4, 3), np.uint8), background, np.zeros(alpha))
