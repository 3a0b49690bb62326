"""Batches for training and evaluation that do not depend on the number of workers and hosts."""

import functools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence

import absl.flags
import cv2
import grain
import numpy as np

from deeplab_jax.data.augmentation import Augmentation
from deeplab_jax.data.crops import MEAN_PIXEL, pad_to
from deeplab_jax.data.datasets import Dataset
from deeplab_jax.data.mixing import pasted_labels, training_crop
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import label_dtype, void_label

Batch = dict[str, np.ndarray]

# Number of prefetched batches per worker process, and, if there are no worker processes, numbers of
# prefetched batches and of threads in this process. A batch of sixteen 513 × 513 crops takes 17 MB.
WORKER_BUFFER = 2
READ_AHEAD = 4
READ_THREADS = 4
# Number of seconds after which a worker process ends if it receives SIGTERM.
TERMINATION_SECONDS = 180
# Signals to a run that worker processes ignore: Ctrl-C, request of a trace, and preemption.
IGNORED_SIGNALS = ("SIGINT", "SIGUSR1", "SIGUSR2")


def training_batches(
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    num_hosts: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yields this host's slice of each global training batch, without end.

    The examples of a step depend only on `seed` and the step. Their augmentation depends only on
    `seed`, the step, and the position in the global batch. Both are therefore independent of the
    numbers of hosts and workers, and of a restart at `start_step`.

    Args:
      dataset: dataset to draw from. Each epoch has a new random order.
      augmentation: augmentation of each example, which may mix it with another one.
      batch_size: number of examples per batch, across all hosts.
      seed: random seed of the order of the examples and of their augmentation.
      start_step: number of global batches to skip; they are not read (default: 0).
      host: index of this host, which is the index of its slice of each global batch (default: 0).
      num_hosts: number of hosts (default: 1).
      workers: number of processes that read ahead; 0 reads in threads of this process (default: 0).

    Yields:
      {"image": [N, h, w, C], "label": [N, h, w]}, where N = batch_size / num_hosts. Images have the
      dtype of the dataset (uint8 or uint16); labels are uint8, or uint16 with more than 255
      classes.

    Raises:
      DeepLabError: batch_size is not a multiple of num_hosts, an example is damaged, or a name in
        `augmentation.copy_paste_classes` is not that of a class of the dataset.
    """
    examples = grain.MapDataset.source(dataset).seed(seed).shuffle().repeat()
    load = functools.partial(
        training_crop,
        dataset=dataset,
        augmentation=augmentation,
        num_classes=_num_classes(dataset),
        pasted=pasted_labels(dataset, augmentation),
    )
    # With drop_remainder=False, Grain would round the "infinite" length up, beyond the maximum int.
    endless = examples.random_map(load).batch(_per_host(batch_size, num_hosts), drop_remainder=True)
    batches = endless[start_step * num_hosts + host :: num_hosts]
    return _iterate(batches, workers)


def evaluation_batches(
    dataset: Dataset,
    sizes: tuple[int, int] | Sequence[tuple[int, int]],
    *,
    batch_size: int,
    fill: Sequence[int] = MEAN_PIXEL,
    host: int = 0,
    num_hosts: int = 1,
    workers: int = 0,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Yields this host's slice of each global evaluation batch.

    Each image is in exactly one slice. All hosts yield the same number of batches. All images of a
    batch are padded to the same size, and all hosts use the same sizes in the same order.

    Args:
      dataset: dataset to evaluate.
      sizes: (height, width) to which images are padded: one size, or a size for each image that is
        evaluated.
      batch_size: number of examples per batch, across all hosts.
      fill: value of each channel of the padding.
      host: index of this host, which is the index of its slice of each global batch (default: 0).
      num_hosts: number of hosts (default: 1).
      workers: number of processes that read ahead; 0 reads in threads of this process (default: 0).
      limit: maximum number of images, from the start of the dataset; None: all.

    Yields:
      {"image": [N, h, w, C], "label": [N, h, w], "index": int32 [N], "size": int32 [N, 2]}. Images
      have the dtype of the dataset (uint8 or uint16); labels are uint8, or uint16 with more than
      255 classes. `index` is the position of each image in the dataset. It is -1 for the void
      examples that fill the last batch of each size. `size` is (height, width) before padding.

    Raises:
      DeepLabError: batch_size is not a multiple of num_hosts, or an image is damaged or larger than
        the size to which it is padded.
    """
    num_images = len(dataset) if limit is None else min(limit, len(dataset))
    padded = np.broadcast_to(np.asarray(sizes, np.int32), (num_images, 2))
    load = functools.partial(_padded_example, dataset=dataset, fill=tuple(fill))
    order = grain.MapDataset.source(evaluation_order(padded, batch_size))
    batches = order.map(load).batch(_per_host(batch_size, num_hosts))
    return _iterate(batches[host::num_hosts], workers)


def evaluation_order(sizes: np.ndarray, batch_size: int) -> list[tuple[int, tuple[int, int]]]:
    """Returns (position in the dataset, padded size) of every image, in the order of evaluation.

    Images are sorted by padded size, and images of equal padded size by position in the dataset.
    The position -1 stands for a void example that fills the last batch of a padded size.

    Args:
      sizes: int [num_images, 2], (height, width) to which each image is padded.
      batch_size: number of examples per batch, across all hosts.
    """
    order: list[tuple[int, tuple[int, int]]] = []
    for size in sorted(set(map(tuple, sizes.tolist()))):
        positions = np.flatnonzero((sizes == size).all(axis=1)).tolist()
        positions += [-1] * (-len(positions) % batch_size)
        order += [(position, size) for position in positions]
    return order


def _per_host(batch_size: int, num_hosts: int) -> int:
    each = batch_size // num_hosts
    if batch_size < 1 or batch_size % num_hosts:
        nearest = sorted({max(1, each) * num_hosts, max(1, each + 1) * num_hosts})
        raise DeepLabError(
            f"batch size {batch_size} is not a positive multiple of the number of hosts, "
            f"{num_hosts}; nearest legal batch sizes: {', '.join(map(str, nearest))}"
        )
    return each


def _num_classes(dataset: Dataset) -> int | None:
    """Returns the number of classes of a dataset; None for a list of examples.

    The number determines the void value; for None, void is 65535 in uint16 labels, otherwise 255.
    """
    descriptor = getattr(dataset, "descriptor", None)
    return descriptor and descriptor.num_classes


def _padded_example(
    place: tuple[int, tuple[int, int]], dataset: Dataset, fill: tuple[int, ...]
) -> Batch:
    index, size = place
    if index >= 0:
        example, num_classes = dataset[index], _num_classes(dataset)
        own_size = np.array(example["label"].shape, np.int32)
        own = {"index": np.array(index, np.int32), "size": own_size}
        return pad_to(example, size, fill, num_classes) | own
    num_classes = dataset.descriptor.num_classes
    return {
        "image": np.full((*size, len(fill)), fill, dataset.descriptor.bands.dtype),
        "label": np.full(size, void_label(num_classes), label_dtype(num_classes)),
        "index": np.array(-1, np.int32),
        "size": np.zeros(2, np.int32),
    }


def _iterate(batches: grain.MapDataset, workers: int) -> Iterator[Batch]:
    if workers == 0:
        options = grain.ReadOptions(num_threads=READ_THREADS, prefetch_buffer_size=READ_AHEAD)
        return iter(batches.to_iter_dataset(options))
    # Grain's worker processes read absl flags. Python programs and notebooks do not parse them.
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=WORKER_BUFFER)
    prepared = batches.to_iter_dataset(options).mp_prefetch(processes, _start_worker)
    return _naming_dead_workers(iter(prepared))


# Probable causes by the exit code of a worker process.
CAUSES = {
    "-9": "Memory was probably exhausted: reduce data.workers. ",
    "1": "Its error is printed above. Worker processes import a Python script that starts them: "
    "call train and evaluate below if __name__ == '__main__':, or set workers to 0. ",
}


def _naming_dead_workers(batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        found = re.search(r"exit code (\S*\d)", str(error))
        raise DeepLabError(
            f"a data worker process ended unexpectedly ({found[0] if found else error}). "
            f"{CAUSES.get(found[1], '') if found else ''}Run the same command again to resume from "
            "the last checkpoint"
        ) from error


def _start_worker(worker: int, num_workers: int) -> None:
    """Prepares a worker process; Grain calls this function when the process starts.

    OpenCV gets one thread, because the worker processes use all cores. Ctrl-C in a terminal and
    signals of SLURM are sent to all processes of a run. Worker processes ignore them, because the
    run reads a few more batches before it saves a checkpoint. They end 180 s after SIGTERM.

    Args:
      worker: index of the worker process; unused.
      num_workers: number of worker processes; unused.
    """
    cv2.setNumThreads(0)
    for name in IGNORED_SIGNALS:
        # Windows lacks two of these signals.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(TERMINATION_SECONDS))
    threading.Thread(target=_end_with_parent, name="parent process", daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker process when its parent process ends without closing it, as by kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
