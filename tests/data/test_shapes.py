import numpy as np
import pytest
import sklearn.ensemble

from deeplab_jax.data.shapes import draw_scene


def test_a_scene_is_a_function_of_seed_split_and_index():
    image, label = draw_scene(3, 1, 5)
    again, label_again = draw_scene(3, 1, 5)
    assert np.array_equal(image, again)
    assert np.array_equal(label, label_again)
    for other in ((4, 1, 5), (3, 0, 5), (3, 1, 6)):
        assert not np.array_equal(image, draw_scene(*other)[0])


@pytest.mark.parametrize("size", [65, 96])
def test_scenes_hold_all_classes_with_void_between(size):
    scenes = [draw_scene(0, 0, index, size) for index in range(40)]
    assert {image.shape for image, _ in scenes} == {(size, size, 3)}
    counts = np.bincount(np.concatenate([label.ravel() for _, label in scenes]), minlength=256)
    assert set(np.flatnonzero(counts)) == {*range(6), 255}
    assert counts[0] / counts.sum() < 0.8
    assert counts[1:6].min() > counts[1:6].max() / 4
    assert 0.02 < counts[255] / counts.sum() < 0.25


def test_color_and_position_do_not_give_the_class_away():
    def pixels(split, number):
        scenes = [draw_scene(0, split, index) for index in range(number)]
        places = np.moveaxis(np.indices((96, 96)), 0, -1)[::5, ::5].reshape(-1, 2)
        features = [np.hstack([image[::5, ::5].reshape(-1, 3), places]) for image, _ in scenes]
        labels = np.concatenate([label[::5, ::5].ravel() for _, label in scenes])
        return np.concatenate(features)[labels < 255], labels[labels < 255]

    classifier = sklearn.ensemble.RandomForestClassifier(15, min_samples_leaf=5, random_state=0)
    classifier.fit(*pixels(0, 80))
    features, truth = pixels(1, 30)
    prediction = classifier.predict(features)
    confusion = np.bincount(6 * truth.astype(int) + prediction, minlength=36).reshape(6, 6)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert (confusion.diagonal() / union).mean() <= 0.35
