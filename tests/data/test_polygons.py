import cv2
import matplotlib.path
import numpy as np
import pytest

from deeplab_jax.data.builders.coco_voc import draw_polygon, draw_runs
from deeplab_jax.errors import DeepLabError


def centres_inside(corners, size) -> np.ndarray:
    """Matplotlib's answer, by winding numbers: for polygons that do not cross themselves."""
    rows, columns = np.indices(size)
    points = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], -1)
    outline = matplotlib.path.Path(np.reshape(corners, (-1, 2)))
    return outline.contains_points(points).reshape(size)


@pytest.mark.parametrize("seed", range(20))
def test_a_star_is_drawn_as_matplotlib_sees_it(seed):
    random = np.random.default_rng(seed)
    size = tuple(random.integers(5, 60, 2).tolist())
    angles = np.sort(random.uniform(0, 2 * np.pi, 12))
    radius = random.uniform(2, 40, 12)
    middle = random.uniform(-5, 60, 2)
    corners = np.stack([np.cos(angles), np.sin(angles)], -1) * radius[:, None] + middle
    assert np.array_equal(draw_polygon(corners.ravel(), size), centres_inside(corners, size))


@pytest.mark.parametrize(
    ("corners", "rows", "columns"),
    [
        ([2, 1, 5, 1, 5, 4, 2, 4], slice(1, 4), slice(2, 5)),
        ([2.5, 1.5, 5.5, 1.5, 5.5, 4.5, 2.5, 4.5], slice(1, 4), slice(2, 5)),
        ([-3, -2, 4, -2, 4, 30, -3, 30], slice(0, 7), slice(0, 4)),
        ([20, 1, 25, 1, 25, 5, 20, 5], slice(0, 0), slice(0, 0)),
        ([1, 1, 4, 4], slice(0, 0), slice(0, 0)),
        ([3, 3, 3, 3, 3, 3], slice(0, 0), slice(0, 0)),
        ([2.2, 1.2, 2.4, 1.2, 2.4, 1.4, 2.2, 1.4], slice(0, 0), slice(0, 0)),
    ],
)
def test_boxes_outside_and_degenerate(corners, rows, columns):
    expected = np.zeros((7, 9), bool)
    expected[rows, columns] = True
    assert np.array_equal(draw_polygon(corners, (7, 9)), expected)


def test_a_polygon_that_crosses_itself_is_even_odd():
    corners = [0, 0, 8, 0, 8, 8, 0, 8, 0, 0, 2, 2, 6, 2, 6, 6, 2, 6, 2, 2]
    expected = np.ones((8, 8), bool)
    expected[2:6, 2:6] = False
    assert np.array_equal(draw_polygon(corners, (8, 8)), expected)


def test_opencv_agrees_but_for_the_outline():
    corners = np.array([[10.3, 5.1], [70.8, 22.6], [55.2, 80.4], [30.0, 60.9], [5.5, 90.2]])
    theirs = np.zeros((100, 90), np.uint8)
    cv2.fillPoly(theirs, [np.rint(corners * 16 - 8).astype(np.int32)], 1, shift=4)
    ours = draw_polygon(corners.ravel(), (100, 90))
    kernel = np.ones((3, 3), np.uint8)
    assert (ours <= cv2.dilate(theirs, kernel)).all()
    assert (ours >= cv2.erode(theirs, kernel)).all()


def test_run_lengths_are_column_major():
    mask = draw_runs([2, 3, 1, 6], (3, 4))
    assert mask.astype(int).tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1]]
    with pytest.raises(DeepLabError, match="11 pixels in total, but the image is 3x4"):
        draw_runs([2, 3, 1, 5], (3, 4))


def test_run_lengths_round_trip():
    mask = np.random.default_rng(0).random((13, 7)) < 0.4
    flat = np.concatenate([[False], mask.T.ravel(), [True]])
    ends = np.flatnonzero(np.diff(flat.astype(int)))
    counts = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    assert np.array_equal(draw_runs(counts, mask.shape), mask)
