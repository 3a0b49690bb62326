"""Throughput of the input pipeline, in images (training crops) per second."""

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
      workers: number of data-loading processes of the pipeline; 0: threads.

    Returns:
      A dictionary with three measurements:

      - `images_per_second_per_core`: number of images per second of processor time, in one thread.
      - `decoding_share`: fraction of this processor time that reading and decoding take, 0..1.
      - `images_per_second`: number of images that the pipeline yields per second of wall time, with
        the given `workers`; the start-up time is excluded.
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
    """Returns the number of processor cores required to supply an accelerator with images.

    Args:
      consumed_per_second: number of images that the accelerator processes per second.
      images_per_second_per_core: throughput of the input pipeline per core.
    """
    return math.ceil(consumed_per_second / images_per_second_per_core)


def _processor_seconds(work: Callable[[int], object], num_examples: int, num_images: int) -> float:
    """Returns the mean processor time of a call, in seconds, after one warm-up call.

    Args:
      work: function to time. Its argument is the index of an example.
      num_examples: number of examples; indices start again at 0 after the last one.
      num_images: number of timed calls.
    """
    work(0)
    started = time.process_time()
    for index in range(num_images):
        work(index % num_examples)
    return (time.process_time() - started) / num_images


def crop_batches(
    dataset: Dataset, augmentation: Augmentation, count: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of the first `count` examples, augmented as in training.

    All work is done in the calling thread. Batches have 16 examples; the last may have fewer.
    """
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
    # The first batches are not timed: they include start-up, or were prefetched during it.
    warm_up = 2 + 4 * max(1, workers)
    for _ in itertools.islice(batches, warm_up):
        pass
    count = max(1, num_images // BATCH_SIZE)
    started = time.perf_counter()
    for _ in itertools.islice(batches, count):
        pass
    return count * BATCH_SIZE / (time.perf_counter() - started)
