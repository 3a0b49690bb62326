"""The base of builders that read an image file and a mask file for each example."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.base import LoadedExample, SegmentationBuilder
from deeplab_jax.data.images import SUFFIXES, one_large_at_a_time, storable_image
from deeplab_jax.errors import DeepLabError


class Pair(NamedTuple):
    """The files of one example; either may turn out to be missing."""

    image: Path
    mask: Path


class PairedFilesBuilder(SegmentationBuilder, skip_registration=True):
    """Reads pairs of files below `source`; a subclass finds them and reads its kind of mask."""

    # Directories below `source` under which the data set may lie, as its archives unpack.
    ROOTS: tuple[str, ...] = (".",)
    # What tells that it lies there, and what the error says when it does not.
    LANDMARK: str
    LAYOUT: str

    def __init__(self, *, source: str | Path, **kwargs: Any) -> None:
        """Finds the pairs.

        Args:
          source: directory of the raw files.
          **kwargs: of `SegmentationBuilder`.

        Raises:
          DeepLabError: the source is no such directory.
        """
        self.source = self._find_source(Path(source).expanduser())
        super().__init__(**kwargs)
        self._pairs = {split: pairs for split, pairs in self.find_pairs().items() if pairs}
        if not self._pairs:
            raise DeepLabError(f"{self.source}: no images found; {self.LAYOUT}")

    @abc.abstractmethod
    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        """Returns the files by split and image id, in the order they are stored."""

    @abc.abstractmethod
    def read_label(self, path: Path) -> np.ndarray:
        """Reads a mask to uint8 [H, W], classes and 255 for void."""

    def read_storable_image(self, path: Path) -> tuple[bytes, tuple[int, int]]:
        """Reads an image to the bytes that are stored and (height, width)."""
        return storable_image(path)

    def image_ids(self) -> dict[str, Sequence[str]]:
        return {split: list(pairs) for split, pairs in self._pairs.items()}

    def load(self, split: str, image_id: str) -> LoadedExample:
        pair = self._pairs[split][image_id]
        with one_large_at_a_time(pair.image, pair.mask):
            encoded, size = self.read_storable_image(pair.image)
            label = self.read_label(pair.mask)
        if label.shape != size:
            raise DeepLabError(
                f"{pair.mask}: the mask is {label.shape[0]}x{label.shape[1]} (height x width), its "
                f"image {pair.image.name} {size[0]}x{size[1]}; they must be of one size"
            )
        return LoadedExample(encoded, label)

    def _find_source(self, source: Path) -> Path:
        for root in self.ROOTS:
            if (source / root / self.LANDMARK).is_dir():
                return source / root
        reason = f"no {self.LANDMARK}/ in it" if source.is_dir() else "no such directory"
        raise DeepLabError(f"{source}: {reason}; {self.LAYOUT}")


def image_files(directory: Path) -> list[Path]:
    """Returns the images anywhere below a directory, sorted by path; hidden files are not meant."""
    return sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
