"""`deeplab_jax` from Python: arrays in, predictor out."""

import numpy as np
import pytest
from reporters import RecordingReporter

import deeplab_jax
from deeplab_jax import config as configs
from deeplab_jax.data import ArrayDataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

NUM_IMAGES = 16


def halves(num_classes, seed=0):
    """Images whose upper and lower parts differ in brightness, which is their class."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 60, (NUM_IMAGES, 40, 56, 3), dtype=np.uint8)
    masks = np.zeros((NUM_IMAGES, 40, 56), np.uint8)
    for image, mask, edge in zip(images, masks, random.integers(10, 30, NUM_IMAGES), strict=True):
        image[edge:] += 150
        mask[edge:] = num_classes - 1
    return images, masks


def tiny_config(commands, class_names):
    config = configs.load(str(commands.config))
    config.data.class_names = class_names
    return config


@pytest.fixture(scope="module")
def first_run(commands, tmp_path_factory):
    """A run on arrays of six classes, two of which occur."""
    workdir = tmp_path_factory.mktemp("arrays") / "run"
    config = tiny_config(commands, tuple("abcdef"))
    result = deeplab_jax.train(
        config,
        workdir,
        halves(6),
        halves(6, seed=1),
        batch_size=8,
        epochs=6,
        reporter=RecordingReporter(),
    )
    return result


def test_arrays_with_batch_size_and_epochs_train(first_run):
    assert first_run.step == 6 * NUM_IMAGES // 8
    assert 0 <= first_run.mean_iou <= 1


# tests/data/test_datasets.py holds what the masks mean.
@pytest.mark.slow
def test_masks_of_0_and_255_train_two_classes(commands, tmp_path):
    config = tiny_config(commands, None)
    config.training.num_steps = 1
    (images, masks), validation = halves(2), halves(2, seed=1)
    result = deeplab_jax.train(
        config,
        tmp_path / "run",
        (images, masks * 255),
        (images, masks * 255),
        reporter=RecordingReporter(),
    )
    predictor = deeplab_jax.load(result.workdir)
    assert len(predictor.class_names) == 2
    metrics = deeplab_jax.evaluate(predictor, ArrayDataset(validation[0], validation[1] * 255))
    expected = deeplab_jax.evaluate(predictor, ArrayDataset(*validation))
    assert metrics["confusion_matrix"] == expected["confusion_matrix"]
    assert np.sum(metrics["confusion_matrix"], axis=1).tolist() == [
        int((validation[1] == label).sum()) for label in range(2)
    ]
    with pytest.raises(DeepLabError, match="at least two"):
        deeplab_jax.train(config, tmp_path / "one", (images, masks * 0), (images, masks * 0))
    assert not (tmp_path / "one").exists()


def test_load_predicts_at_the_image_s_own_size(first_run):
    predictor = deeplab_jax.load(first_run.workdir)
    image = halves(6)[0][0][:33, :50]
    class_map = predictor(image)
    assert class_map.shape == (33, 50)
    assert class_map.dtype == np.int32
    assert predictor.class_names == tuple("abcdef")
    prediction = predictor.predict(image)
    np.testing.assert_allclose(prediction.probabilities.sum(-1), 1, atol=1e-5)


# tests/training/test_initialization.py holds what is taken over.
@pytest.mark.slow
def test_fine_tuning_replaces_only_the_classifier(commands, first_run, tmp_path):
    config = tiny_config(commands, ("low", "middle", "high"))
    config.training.init_from = str(first_run.workdir)
    config.training.num_steps = 1
    listener = RecordingReporter()
    deeplab_jax.train(config, tmp_path / "tuned", halves(3), halves(3), reporter=listener)
    afresh = [text for text in listener.messages if "is initialized randomly" in text]
    assert len(afresh) == 2
    assert all("classifier" in text for text in afresh)


def test_fine_tuning_another_network_is_refused(commands, first_run, tmp_path):
    config = tiny_config(commands, tuple("abcdef"))
    config.training.init_from = str(first_run.workdir)
    config.model.aspp_channels = 16
    with pytest.raises(DeepLabError, match="is a different network"):
        deeplab_jax.train(config, tmp_path / "run", halves(6), halves(6), reporter=Reporter())


@pytest.mark.slow
def test_training_that_finds_nothing_better_stops_and_stays_stopped(commands, tmp_path):
    config = tiny_config(commands, tuple("abcdef"))
    config.schedule.base_learning_rate = 0.0
    config.model.frozen_batch_norm = True
    config.training.update({"num_steps": 9, "patience": 2, "ema_decay": 0.0})
    config.evaluation.every_steps = 1
    for complaint in ("stopped early at step 3: the last", "the run stopped early at step 3 of 9"):
        listener = RecordingReporter()
        result = deeplab_jax.train(
            config, tmp_path / "run", halves(6), halves(6), reporter=listener
        )
        assert result.step == 3
        assert any(complaint in text for text in listener.messages)
    config.training.num_steps = 3
    listener = RecordingReporter()
    deeplab_jax.train(config, tmp_path / "whole", halves(6), halves(6), reporter=listener)
    assert not any("stopped early" in text for text in listener.messages)


def test_masks_that_do_not_fit_are_named(commands, tmp_path):
    images, masks = halves(6)
    broken = [*masks[:3], masks[3][:, :-1], *masks[4:]]
    config = tiny_config(commands, tuple("abcdef"))
    with pytest.raises(DeepLabError, match=r"\[3\]"):
        deeplab_jax.train(config, tmp_path / "run", (list(images), broken), halves(6))
    assert not (tmp_path / "run").exists()
