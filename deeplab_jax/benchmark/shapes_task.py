"""Mean IoU of DeepLab v3+ and of weaker baselines on the built-in `shapes` dataset.

There are two baselines: a classifier of single pixels by color and position, and DeepLab v3+ at
output stride 32 without its decoder.
"""

import pathlib

import numpy as np

from deeplab_jax import config as configs
from deeplab_jax.data import Dataset
from deeplab_jax.data.datasets import Example
from deeplab_jax.labels import VOID_LABEL
from deeplab_jax.lazy import import_extra
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import train

# Training data of the per-pixel classifier: number of pixels per image, and of images.
PIXELS_PER_IMAGE = 100
TRAINING_IMAGES = 800
TREES = 30


def per_pixel_mean_iou(train_set: Dataset, validation_set: Dataset) -> float:
    """Trains a random forest on the color and position of pixels; returns its mean IoU.

    Args:
      train_set: training examples.
      validation_set: examples on which mean IoU is computed.

    Raises:
      DeepLabError: scikit-learn is not installed.
    """
    ensemble = import_extra("sklearn.ensemble", "test", "this benchmark")
    random = np.random.default_rng(0)
    samples = [
        _sample(train_set[index], random) for index in range(min(TRAINING_IMAGES, len(train_set)))
    ]
    features, labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    forest = ensemble.RandomForestClassifier(TREES, min_samples_leaf=4, random_state=0, n_jobs=-1)
    forest.fit(features, labels)
    num_classes = train_set.descriptor.num_classes
    total = ConfusionMatrix.empty(num_classes)
    for index in range(len(validation_set)):
        example = validation_set[index]
        prediction = forest.predict(_features(example["image"])).reshape(example["label"].shape)
        counts = ConfusionMatrix.from_labels(example["label"], prediction, num_classes)
        total = total.merge(counts)
    return total.mean_iou


def network_mean_iou(
    workdir: pathlib.Path, data_dir: pathlib.Path, reporter: Reporter, **model: object
) -> float:
    """Trains a network with the config of `deeplab-jax demo`; returns its validation mean IoU.

    Args:
      workdir: workdir of the training run.
      data_dir: directory of the prepared `shapes` dataset.
      reporter: receives the progress.
      **model: fields of `config.model` to change in the config of the demo, and their values.
    """
    config = configs.load("shapes:cpu")
    config.data.data_dir = str(data_dir)
    config.model.update(model)
    return train(config, workdir, reporter=reporter).mean_iou


def _features(image: np.ndarray) -> np.ndarray:
    """Returns the features of all pixels, [H·W, 5]: red, green, blue, row and column."""
    positions = np.moveaxis(np.indices(image.shape[:2]), 0, -1)
    stacked = np.concatenate([image, positions], axis=-1)
    return stacked.reshape(-1, 5)


def _sample(example: Example, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = example["label"].ravel()
    known = np.flatnonzero(labels != VOID_LABEL)
    chosen = random.choice(known, PIXELS_PER_IMAGE)
    return _features(example["image"])[chosen], labels[chosen]
