"""Baseline for the input pipeline: Pillow, torchvision's v2 transforms and a DataLoader."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from deeplab_jax.benchmark.pipeline import BATCH_SIZE, crop_batches
from deeplab_jax.data import MEAN_PIXEL, Augmentation
from deeplab_jax.data.prepared import PreparedDataset
from deeplab_jax.labels import VOID_LABEL
from experiments.benchmarks.baselines import compare
from experiments.benchmarks.pytorch import import_library


def write_files(dataset: PreparedDataset, count: int, folder: Path) -> list[tuple[Path, Path]]:
    """Writes the first `count` images and masks to files, and returns pairs (image, mask) of paths.

    The files contain the bytes that the dataset stores, which are encoded as JPEG or PNG.
    """
    files = []
    for index in range(count):
        pair = folder / f"{index}.image", folder / f"{index}.mask"
        for file, encoded in zip(pair, dataset.encoded(index), strict=True):
            file.write_bytes(encoded)
        files.append(pair)
    return files


def make_batches(
    files: Sequence[tuple[Path, Path]], augmentation: Augmentation, batch_size: int
) -> Callable[[], Iterator[Any]]:
    """Returns a function that returns an iterator over batches of augmented images and masks.

    The iterator reads each file once, in one thread, and yields pairs (images, masks) of uint8
    tensors.

    Args:
      files: pairs (image, mask) of paths; images may have different sizes.
      augmentation: augmentation; only scales, crop and flip are used.
      batch_size: number of images per batch.

    Raises:
      DeepLabError: torchvision is not installed.
    """
    torch = import_library("torch")
    torch.set_num_threads(1)
    loader = import_library("torch.utils.data").DataLoader(
        _Files(files, _transform(torch, augmentation)), batch_size=batch_size, num_workers=0
    )
    return lambda: iter(loader)


class _Files:
    """Map-style PyTorch dataset over pairs (image, mask) of files."""

    def __init__(self, files: Sequence[tuple[Path, Path]], transform: Callable) -> None:
        self._files, self._transform = files, transform
        self._open = import_library("PIL.Image").open
        self._tensors = import_library("torchvision.tv_tensors")
        self._to_tensor = import_library("torchvision.transforms.v2.functional").pil_to_tensor

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        image, mask = (self._open(io.BytesIO(file.read_bytes())) for file in self._files[index])
        return self._transform(
            self._tensors.Image(self._to_tensor(image.convert("RGB"))),
            self._tensors.Mask(self._to_tensor(mask)[0]),
        )


def _transform(torch: Any, augmentation: Augmentation) -> Callable:
    v2 = import_library("torchvision.transforms.v2")
    tensors = import_library("torchvision.tv_tensors")
    low, high, step = augmentation.min_scale, augmentation.max_scale, augmentation.scale_step
    scales = torch.arange(low, high + 1e-6, step).tolist()
    crop = v2.RandomCrop(
        augmentation.crop_size,
        pad_if_needed=True,
        fill={tensors.Image: MEAN_PIXEL, tensors.Mask: VOID_LABEL},
    )
    flip = v2.RandomHorizontalFlip()

    def transform(image: Any, mask: Any) -> Any:
        scale = scales[int(torch.randint(len(scales), ()))]
        size = [max(1, round(length * scale)) for length in mask.shape]
        # As in deeplab_jax, images are resized without antialiasing, and masks by nearest neighbor.
        image = v2.functional.resize(image, size, antialias=False)
        mask = v2.functional.resize(mask, size)
        return flip(*crop(image, mask))

    return transform


def measure_pipeline(
    dataset: PreparedDataset, augmentation: Augmentation, *, num_images: int, repetitions: int
) -> dict[str, object]:
    """Times the input pipeline of deeplab_jax and of torchvision alternately.

    Both pipelines decode, scale, crop and flip images in one thread, and stack them into batches.
    deeplab_jax reads the records of the dataset, and the baseline reads files with the same
    content.

    Args:
      dataset: dataset to read.
      augmentation: augmentation; only scales, crop and flip are used.
      num_images: number of images per run, from the start of the dataset.
      repetitions: number of timed runs of each pipeline.

    Returns:
      Dictionary with the keys:

      * `milliseconds_per_image`: median processor time of deeplab_jax.
      * `baseline_milliseconds_per_image`: median processor time of the baseline.
      * `ratio`: median of the ratios deeplab_jax / baseline of processor times.
      * `interval`: 95 % confidence interval of this median, see `compare`.
      * `images`, `repetitions`: number of images per run, and number of runs.
      * `baseline`: description of the baseline.

    Raises:
      DeepLabError: torchvision is not installed.
    """
    cv2.setNumThreads(0)
    count = min(num_images, len(dataset))
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(dataset, count, Path(folder))
        sides = (
            lambda: crop_batches(dataset, augmentation, count),
            make_batches(files, augmentation, BATCH_SIZE),
        )
        for side in sides:
            next(iter(side()))
        turns = [tuple(_seconds_of_all(side()) for side in sides) for _ in range(repetitions)]
    ours, theirs = (1e3 * statistics.median(column) / count for column in zip(*turns, strict=True))
    return {
        "baseline": "torchvision v2 transforms in a DataLoader",
        "milliseconds_per_image": ours,
        "baseline_milliseconds_per_image": theirs,
        **compare(turns),
        "images": count,
        "repetitions": repetitions,
    }


def _seconds_of_all(batches: Iterator[object]) -> float:
    """Returns the processor time of iterating over all batches, in seconds."""
    started = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - started
