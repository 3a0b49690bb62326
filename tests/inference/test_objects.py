"""Regions of class maps, against drawn ones and scikit-image."""

import json

import numpy as np
import pytest
import skimage.measure

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import Box, find_objects

# Two regions of class 1 that share a corner, one of class 2, void.
DRAWN = np.array(
    [
        [1, 1, 0, 0, 2],
        [1, 1, 0, 0, 2],
        [0, 0, 1, 255, 2],
    ]
)


def test_boxes_areas_and_centroids_of_a_drawn_map():
    whole, column = find_objects(DRAWN, classes=(1, 2))
    assert (whole.class_index, whole.area, whole.box) == (1, 5, Box(0, 0, 3, 3))
    assert whole.mask.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert whole.centroid == pytest.approx((0.8, 0.8))
    assert (column.class_index, column.area, column.box) == (2, 3, Box(0, 4, 3, 5))
    assert column.centroid == (1, 4)
    assert DRAWN[column.box.window].tolist() == [[2], [2], [2]]


def test_corners_can_part_regions_and_small_ones_are_left_out():
    regions = find_objects(DRAWN, classes=(1,), connectivity=4)
    assert [region.area for region in regions] == [4, 1]
    kept = find_objects(DRAWN, classes=(1,), connectivity=4, min_area=2)
    assert [region.box for region in kept] == [Box(0, 0, 2, 2)]


def test_void_and_absent_classes_have_no_regions():
    assert {region.class_index for region in find_objects(DRAWN)} == {0, 1, 2}
    assert find_objects(DRAWN, classes=(3, 255)) == []
    assert find_objects(np.full((3, 4), 255, np.uint8)) == []
    assert find_objects(np.zeros((0, 4), np.int32)) == []


def test_scores_are_means_over_the_region_and_json_holds_it_all():
    probabilities = np.zeros((3, 5, 3), np.float32)
    probabilities[:2, :2, 1], probabilities[2, 2, 1] = 0.5, 1
    found = find_objects(DRAWN, classes=(1,), probabilities=probabilities)
    assert found[0].score == pytest.approx(0.6)
    assert json.loads(json.dumps(found[0].as_json(["sky", "car", "tree"]))) == {
        "class_name": "car",
        "box": [0, 0, 3, 3],
        "area": 5,
        "centroid": [0.8, 0.8],
        "score": 0.6,
    }
    assert find_objects(DRAWN, classes=(1,))[0].as_json(["sky", "car"])["score"] is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_as_scikit_image_finds_them(dtype, connectivity):
    class_map = np.random.default_rng(0).integers(0, 3, (37, 51)).astype(dtype)
    found = find_objects(class_map, classes=(1, 2), connectivity=connectivity)
    ours, theirs = [], []
    for region in found:
        ours.append((region.class_index, *region.box, region.area, *np.round(region.centroid, 6)))
        window = class_map[region.box.window]
        assert (window[region.mask] == region.class_index).all()
        assert region.mask.sum() == region.area
    for index in (1, 2):
        labels = skimage.measure.label(class_map == index, connectivity=connectivity // 4)
        for region in skimage.measure.regionprops(labels):
            theirs.append((index, *region.bbox, region.area, *np.round(region.centroid, 6)))
    assert sorted(ours) == sorted(theirs)
    assert ours == sorted(ours, key=lambda each: (each[0], -each[5]))


@pytest.mark.parametrize(
    ("class_map", "arguments", "complaint"),
    [
        (np.zeros((3, 4, 3), np.uint8), {}, r"\[height, width\], got uint8 \[3, 4, 3\]"),
        (np.zeros((3, 4), np.float32), {}, "got float32"),
        (np.zeros((3, 4), np.int32), {"connectivity": 6}, "must be 4 or 8"),
    ],
)
def test_mistakes_are_named(class_map, arguments, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        find_objects(class_map, **arguments)
