"""Averages over time, on closed forms."""

import itertools

import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import (
    averaged_over_time,
    changed_share,
    class_areas,
    stable_class_maps,
)


def certain(class_map, num_classes=2):
    return np.eye(num_classes, dtype=np.float32)[np.asarray(class_map)]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_the_average_has_exponential_weights(keep):
    frames = np.random.default_rng(0).dirichlet(np.ones(3), (6, 4, 5))
    average = None
    for frame in frames:
        average = averaged_over_time(average, frame, keep)
    weights = (1 - keep) * keep ** np.arange(5, -1, -1.0)
    weights[0] = keep**5
    np.testing.assert_allclose(average, np.tensordot(weights, frames, 1), atol=1e-12)
    np.testing.assert_allclose(average.sum(-1), 1)


@pytest.mark.parametrize(("keep", "frames"), [(0.8, 4), (0.6, 2), (0.4, 1), (0.0, 1)])
def test_a_change_is_followed_after_the_frames_that_are_promised(keep, frames):
    video = [certain([[0, 0, 0]]), *[certain([[0, 1, 0]])] * 5]
    shown = [class_map[0, 1] for class_map in stable_class_maps(video, keep)]
    assert shown == [0] * frames + [1] * (6 - frames)


def test_flicker_is_steadied():
    doubts = [np.array([[0.3, 0.7]], np.float32), np.array([[0.55, 0.45]], np.float32)]
    video = [np.stack([certain([0]), doubt]) for doubt in doubts] * 4
    alone = list(stable_class_maps(video, 0.0))
    steady = list(stable_class_maps(video, 0.6))
    assert [changed_share(*pair) for pair in itertools.pairwise(alone)] == [0.5] * 7
    assert len({each[1, 0] for each in steady}) == 1


@pytest.mark.parametrize(("cut", "after"), [(0.5, 1), (1.0, 0)])
def test_a_scene_cut_resets_the_temporal_filter(cut, after):
    video = [certain([[0, 0, 0]])] * 3 + [certain([[1, 1, 0]])]
    shown = list(stable_class_maps(video, 0.8, cut))
    assert shown[-1].tolist() == [[after, after, 0]]
    assert shown[-1].dtype == np.int32


def test_frames_are_read_one_by_one():
    def video():
        yield certain([[0]])
        raise AssertionError("the second frame was read before it was asked for")

    assert next(stable_class_maps(video())).tolist() == [[0]]


@pytest.mark.parametrize("keep", [-0.1, 1.0])
def test_keep_has_a_range(keep):
    with pytest.raises(DeepLabError, match=r"must be in \[0, 1\)"):
        averaged_over_time(None, certain([[0]]), keep)


def test_frames_are_of_one_size():
    with pytest.raises(DeepLabError, match=r"the same shape; got \[1, 2, 2\] after"):
        list(stable_class_maps([certain([[0]]), certain([[0, 1]])]))


def test_areas_and_changes_leave_void_out():
    first = np.array([[0, 2, 255], [2, 2, 0]], np.uint8)
    assert class_areas(first, 4).tolist() == [2, 0, 3, 0]
    second = np.array([[0, 0, 0], [2, 255, 1]], np.uint8)
    assert changed_share(first, second) == 2 / 4
    assert changed_share(first, first) == 0
    void = np.full((2, 3), 255, np.uint8)
    assert changed_share(first, void) == 0
    assert class_areas(void, 2).tolist() == [0, 0]
