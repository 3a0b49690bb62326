"""Each task is solved by an oracle that uses its cue, and by none that lacks it."""

import time

import cv2
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics

from deeplab_jax.data import diagnostics
from deeplab_jax.data.diagnostics import DIAGNOSTICS, draw_diagnostic
from deeplab_jax.errors import DeepLabError

COUNT, SIZE = 60, 96


def drawn(name, count=COUNT, **options):
    return [draw_diagnostic(name, 0, 1, index, **options) for index in range(count)]


def near(image, color, limit=45):
    return np.linalg.norm(image - np.float32(color), axis=-1) < limit


def components(mask, least=12):
    """Yields mask and center (row, column) of each connected component."""
    count, numbers, statistics, centers = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    for index in range(1, count):
        if statistics[index, cv2.CC_STAT_AREA] >= least:
            yield numbers == index, centers[index][::-1]


def accuracy(predicted, labels):
    truth, found = (
        np.concatenate([x.ravel() for x in labels]),
        np.concatenate([x.ravel() for x in predicted]),
    )
    return (truth == found)[truth != 255].mean()


def mean_iou(predicted, labels, classes):
    truth, found = (np.concatenate([x.ravel() for x in maps]) for maps in (labels, predicted))
    return sklearn.metrics.jaccard_score(truth, found, labels=classes, average="macro")


def colored_by(image, sees):
    """Returns the map in which each target has the majority color of the cues that it sees.

    `sees` is a function from the center of a target to the mask of the pixels that it uses.
    """
    result = np.zeros(image.shape[:2], np.uint8)
    red, blue = near(image, diagnostics.RED), near(image, diagnostics.BLUE)
    for mask, center in components(near(image, diagnostics.TARGET)):
        visible = sees(center)
        # The mask of a noisy target may lack pixels.
        area = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0
        result[area] = (blue & visible).sum() > (red & visible).sum()
    return result


def at_distance(distance):
    def sees(center):
        visible = np.zeros((SIZE, SIZE), bool)
        for direction in diagnostics.DIRECTIONS:
            row, column = np.rint(center + distance * np.array(direction)).astype(int)
            rows, columns = (slice(max(0, at - 1), max(0, at + 2)) for at in (row, column))
            visible[rows, columns] = True
        return visible

    return sees


def within(radius):
    def sees(center):
        rows, columns = np.indices((SIZE, SIZE))
        return np.maximum(abs(rows - center[0]), abs(columns - center[1])) <= radius

    return sees


@pytest.mark.parametrize("distance", [12, 24, 36])
def test_only_the_cue_at_the_distance_decides(distance):
    images, labels = zip(*drawn("diagnostic_distance", distance=distance), strict=True)
    oracle = [colored_by(image, at_distance(distance)) for image in images]
    assert accuracy(oracle, labels) >= 0.95
    for blind in (within(distance - 5), at_distance(distance // 2), at_distance(2 * distance)):
        assert accuracy([colored_by(image, blind) for image in images], labels) < 0.62
    shares = [np.mean(np.concatenate([x[x != 255] for x in labels]) == c) for c in (0, 1)]
    assert min(shares) > 0.4


def test_only_the_whole_image_shows_the_global_cue():
    images, labels = zip(*drawn("diagnostic_global"), strict=True)
    oracle = [colored_by(image, within(SIZE)) for image in images]
    assert accuracy(oracle, labels) >= 0.95
    radius = int(diagnostics.GLOBAL_DISTANCE * SIZE / np.sqrt(2)) - 3
    blind = [colored_by(image, within(radius)) for image in images]
    assert accuracy(blind, labels) < 0.62


def test_only_outlines_distinguish_the_objects_of_all_scales():
    images, labels = zip(*drawn("diagnostic_scales"), strict=True)
    oracle, colors, classes, radii = [], [], [], []
    for image, label in zip(images, labels, strict=True):
        result = np.zeros_like(label)
        foreground = ~near(image, [diagnostics.GRAY] * 3, 40)
        for mask, _ in components(foreground, least=8):
            contours, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            radius = cv2.minEnclosingCircle(contours[0])[1] + 0.4
            fraction = mask.sum() / (np.pi * radius**2)
            result[mask] = 1 if fraction > 0.8 else 2 if fraction > 0.52 else 3
            colors.append(image[mask].mean(axis=0))
            classes.append(np.bincount(label[mask], minlength=4).argmax())
            radii.append(radius)
        oracle.append(result)
    assert mean_iou(oracle, labels, [1, 2, 3]) >= 0.95
    assert max(radii) / min(radii) > 12
    half = len(colors) // 2
    blind = sklearn.linear_model.LogisticRegression(max_iter=1000).fit(
        colors[:half], classes[:half]
    )
    assert blind.score(colors[half:], classes[half:]) < 0.5


def test_only_full_resolution_shows_thin_structures():
    images, labels = zip(*drawn("diagnostic_thin"), strict=True)
    gray = [image.mean(axis=-1) - diagnostics.GRAY for image in images]

    def classes(level, threshold):
        return np.where(level > threshold, 1, np.where(level < -threshold, 2, 0)).astype(np.uint8)

    oracle = [classes(level, diagnostics.LINE_CONTRAST / 2) for level in gray]
    assert mean_iou(oracle, labels, [1, 2]) >= 0.95
    for stride, bound in ((8, 0.25), (16, 0.2)):
        small = [cv2.resize(g, (SIZE // stride,) * 2, interpolation=cv2.INTER_AREA) for g in gray]
        coarse = [cv2.resize(g, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for g in small]
        best = max(
            mean_iou([classes(level, threshold) for level in coarse], labels, [1, 2])
            for threshold in (1, 3, 6, 12)
        )
        assert best < bound


def test_rare_classes_are_known_by_color_and_missed_by_frequency():
    images, labels = zip(*drawn("diagnostic_rare", 200), strict=True)
    colors = np.float32([[diagnostics.GRAY] * 3, *diagnostics.RARE_COLORS])
    oracle = [np.stack([np.linalg.norm(i - c, axis=-1) for c in colors]).argmin(0) for i in images]
    assert mean_iou(oracle, labels, [1, 2, 3, 4]) >= 0.95
    frequent = [(label > 0).astype(np.uint8) for label in labels]
    assert mean_iou(frequent, labels, [1, 2, 3, 4]) < 0.25
    pixels = np.bincount(np.concatenate([label.ravel() for label in labels]), minlength=5)[1:]
    assert (np.diff(pixels) < 0).all()
    assert pixels[0] > 20 * pixels[3] > 0


def test_only_full_resolution_shows_the_outlines():
    images, labels = zip(*drawn("diagnostic_outlines"), strict=True)
    colors = np.float32([[diagnostics.GRAY] * 3, *diagnostics.OBJECT_COLORS])

    def nearest(image):
        return np.stack([np.linalg.norm(image - c, axis=-1) for c in colors]).argmin(0)

    bands = [cv2.dilate((x == 255).astype(np.uint8), np.ones((3, 3))) > 0 for x in labels]
    near_void = [np.where(band, label, 255) for band, label in zip(bands, labels, strict=True)]
    oracle = [nearest(image) for image in images]
    assert accuracy(oracle, labels) >= 0.95
    assert accuracy(oracle, near_void) >= 0.95
    small = [cv2.resize(image, (6, 6), interpolation=cv2.INTER_AREA) for image in images]
    coarse = [nearest(cv2.resize(image, (SIZE, SIZE))) for image in small]
    assert accuracy(coarse, near_void) < 0.65
    # Void is one pixel at each side of an outline, and nothing else.
    for label in labels:
        beside = cv2.dilate((label != 255).astype(np.uint8), np.ones((3, 3))) > 0
        assert beside.mean() > 0.97
        assert 0.03 < (label == 255).mean() < 0.5


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_images_are_functions_of_seed_split_and_index_and_fast(name):
    first, again = draw_diagnostic(name, 0, 0, 3), draw_diagnostic(name, 0, 0, 3)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for changed in ((1, 0, 3), (0, 1, 3), (0, 0, 4)):
        assert (draw_diagnostic(name, *changed)[0] != first[0]).any()
    assert first[0].shape == (96, 96, 3)
    assert set(np.unique(first[1])) <= {*range(DIAGNOSTICS[name].descriptor.num_classes), 255}
    begun = time.process_time()
    drawn(name, 50)
    # 200 images per second.
    assert time.process_time() - begun < 50 / 200


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("diagnostic_scale", {}, "did you mean 'diagnostic_scales'"),
        ("diagnostic_thin", {"size": 32}, "must be at least 64"),
        ("diagnostic_thin", {"distance": 12}, "does not support distance"),
        ("diagnostic_distance", {"distance": 60}, "must be in 11..39"),
    ],
)
def test_illegal_tasks_are_refused(name, options, message):
    with pytest.raises(DeepLabError, match=message):
        draw_diagnostic(name, 0, 0, 0, **options)
