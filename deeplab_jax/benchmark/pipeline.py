"""Throughput of the input pipeline in training crops per second."""

import itertools
import math
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from deeplab_jax.data import Augmentation, Dataset, training_batches
from deeplab_jax.data.augmentation import augment

BATCH_SIZE = 16


def measure_pipeline(
    dataset: Dataset, augmentation: Augmentation, *, num_images: int, workers: int
) -> dict[str, float]:
    """Measures the throughput of reading, decoding and augmenting images.

    Args:
      dataset: dataset to read.
      augmentation: augmentation of each example.
      num_images: number of images per measurement.
      workers: number of data-loading processes of the whole pipeline; 0: threads.

    Returns:
      `images_per_second_per_core`, from the processor time of one thread; `decoding_share`, the
      fraction of that time spent on decoding; `images_per_second` of the whole pipeline, from wall
      time without start-up.
    """
    # One thread, so that processor time is the time of one core.
    cv2.setNumThreads(0)
    decoding = _processor_seconds(lambda index: dataset[index], len(dataset), num_images)
    whole = _processor_seconds(
        lambda index: augment(dataset[index], np.random.default_rng(index), augmentation),
        len(dataset),
        num_images,
    )
    return {
        "images_per_second_per_core": 1 / whole,
        "decoding_share": decoding / whole,
        "images_per_second": _throughput(dataset, augmentation, num_images, workers),
    }


def cores_to_feed(consumed_per_second: float, images_per_second_per_core: float) -> int:
    """Returns the number of cores needed to supply an accelerator with images."""
    return math.ceil(consumed_per_second / images_per_second_per_core)


def _processor_seconds(work: Callable[[int], object], num_examples: int, num_images: int) -> float:
    """Returns the mean processor time per image, in seconds."""
    work(0)
    started = time.process_time()
    for index in range(num_images):
        work(index % num_examples)
    return (time.process_time() - started) / num_images


def crop_batches(
    dataset: Dataset, augmentation: Augmentation, count: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of the first `count` examples, augmented as in training, in this thread."""
    for first in range(0, count, BATCH_SIZE):
        crops = [
            augment(dataset[index], np.random.default_rng(index), augmentation)
            for index in range(first, min(first + BATCH_SIZE, count))
        ]
        yield {name: np.stack([crop[name] for crop in crops]) for name in crops[0]}


def _throughput(
    dataset: Dataset, augmentation: Augmentation, num_images: int, workers: int
) -> float:
    batches = training_batches(
        dataset, augmentation, batch_size=BATCH_SIZE, seed=0, workers=workers
    )
    # The first batches include start-up and prefetched examples.
    warm_up = 2 + 4 * max(1, workers)
    for _ in itertools.islice(batches, warm_up):
        pass
    count = max(1, num_images // BATCH_SIZE)
    started = time.perf_counter()
    for _ in itertools.islice(batches, count):
        pass
    return count * BATCH_SIZE / (time.perf_counter() - started)
