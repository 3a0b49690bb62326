"""Training crops as one makes them with torchvision's transforms: Pillow, v2, a DataLoader."""

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
    """Writes the first images and masks as files, as a PyTorch dataset reads them."""
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
    """Returns what goes through the files once, in batches of uint8 tensors, in one thread.

    Args:
      files: of images and masks, of any sizes.
      augmentation: its scales, crop and flip; the others are off.
      batch_size: images at once.

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
    """A map-style dataset over pairs of files."""

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
        # Without antialiasing, as ours: the same pixels are read. Masks are resized to the nearest.
        image = v2.functional.resize(image, size, antialias=False)
        mask = v2.functional.resize(mask, size)
        return flip(*crop(image, mask))

    return transform


def measure_pipeline(
    dataset: PreparedDataset, augmentation: Augmentation, *, num_images: int, repetitions: int
) -> dict[str, object]:
    """Measures the same crops of ours and of torchvision's transforms in a DataLoader, in turns.

    Both decode, scale, crop, flip and stack batches in one thread; ours reads the dataset's
    records, theirs files of the same bytes.

    Args:
      dataset: what to read.
      augmentation: scales, crop and flip.
      num_images: number of images, the first ones, in each turn.
      repetitions: turns.

    Returns:
      `milliseconds_per_image` and `baseline_milliseconds_per_image` of processor time, medians;
      `ratio`, the median of the turns' ratios, and `spread`, its lowest and highest quarter.

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
    """Returns the processor time of going through batches in seconds."""
    started = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - started
