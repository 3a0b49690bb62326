"""A small prepared data set, raw files to prepare, and a reporter that remembers."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from reporters import RecordingReporter

from deeplab_jax.data.builders.shapes import Shapes
from deeplab_jax.data.preparation import prepare
from deeplab_jax.reporter import Reporter


@pytest.fixture
def reporter() -> RecordingReporter:
    return RecordingReporter()


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with `shapes`: 22 train and 7 val images of 64 × 64."""
    data_dir = tmp_path_factory.mktemp("prepared")
    builder = functools.partial(Shapes, data_dir=data_dir, num_train=22, num_val=7, size=64)
    prepare(builder, reporter=Reporter())
    return data_dir


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array, or Pillow image, below tmp_path and returns where."""

    def write(name: str, pixels: np.ndarray | PIL.Image.Image, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
        image.save(path, **options)
        return path

    return write


@pytest.fixture
def photo() -> np.ndarray:
    """uint8 [11, 14, 3], smooth so that JPEG keeps it nearly."""
    rows, columns = np.indices((11, 14))
    return np.stack([rows * 20, columns * 15, 255 - rows * 10], -1).astype(np.uint8)
