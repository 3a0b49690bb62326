"""Bases of the builders that read one image file and one mask file for each example."""

import abc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.base import Facts, LoadedExample, SegmentationBuilder
from deeplab_jax.data.descriptors import read_text
from deeplab_jax.data.image_layout import aligned_label, turned, turned_back
from deeplab_jax.data.images import StorableImage, one_large_at_a_time, storable_image
from deeplab_jax.data.masks import MaskFile, open_mask
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import list_images

# A note on an example, see `Facts`.
DRAWN_ON_STORED = "mask was drawn on the stored pixels of an image with EXIF orientation; turned"


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

    def __init__(
        self, *, source: str | Path, masks_drawn_on: str | None = None, **kwargs: Any
    ) -> None:
        """Finds the pairs.

        Args:
          source: directory of the raw files.
          masks_drawn_on: `displayed` or `stored`: on which pixels of images with an EXIF
            orientation the masks were drawn, where sizes do not decide; None refuses such pairs.
          **kwargs: of `SegmentationBuilder`.

        Raises:
          DeepLabError: the source is no such directory.
        """
        self.source = self._find_source(Path(source).expanduser())
        self._masks_drawn_on = masks_drawn_on
        super().__init__(**kwargs)
        self._pairs = {split: pairs for split, pairs in self.find_pairs().items() if pairs}
        if not self._pairs:
            raise DeepLabError(f"{self.source}: no images found; {self.LAYOUT}")

    @abc.abstractmethod
    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        """Returns the files by split and image id, in the order they are stored."""

    @abc.abstractmethod
    def read_label(self, mask: MaskFile) -> np.ndarray:
        """Reads an opened mask to `label_dtype(num_classes)` [H, W], classes and void."""

    def read_storable_image(self, path: Path) -> StorableImage:
        """Reads an image as it is stored."""
        return storable_image(path)

    def directories(self) -> set[Path]:
        """Returns the directories whose files are meant to be data."""
        return {
            file.parent
            for pairs in self._pairs.values()
            for pair in pairs.values()
            for file in pair
        }

    def image_ids(self) -> dict[str, Sequence[str]]:
        return {split: list(pairs) for split, pairs in self._pairs.items()}

    def load(self, split: str, image_id: str) -> LoadedExample:
        pair = self._pairs[split][image_id]
        with one_large_at_a_time(pair.image, pair.mask):
            image = self.read_storable_image(pair.image)
            mask = open_mask(pair.mask)
            label, drawn_on_stored = self._aligned(self.read_label(mask), mask, image, pair)
        notes = (*image.notes, *([DRAWN_ON_STORED] if drawn_on_stored else []))
        facts = Facts(image.digest, notes, str(pair.mask), self.used_colors(mask))
        return LoadedExample(image.encoded, label, facts)

    def used_colors(self, mask: MaskFile) -> dict[int, tuple[int, int, int]]:
        """Returns the color of each palette index of a mask; all masks must agree on them."""
        return dict(mask.used_colors())

    def notes(self) -> list[str]:
        return super().notes() + self._left_out_files()

    def _aligned(
        self, label: np.ndarray, mask: MaskFile, image: StorableImage, pair: Pair
    ) -> tuple[np.ndarray, bool]:
        """Returns the label upright, and whether it was drawn on the image's stored pixels."""
        stored = turned(turned_back(label, mask.orientation), image.orientation)
        if image.size not in (label.shape, stored.shape):
            height, width = image.size
            raise DeepLabError(
                f"{pair.mask}: the mask is {label.shape[0]}x{label.shape[1]} (height x width), its "
                f"image {pair.image.name} {height}x{width}; they must be of one size"
                f"{_exif_reason(image.orientation, mask.orientation)}"
            )
        return aligned_label(
            label if label.shape == image.size else None,
            stored if stored.shape == image.size else None,
            orientation=image.orientation,
            drawn_on=self._masks_drawn_on,
            origin=f"{pair.mask} (image {pair.image.name})",
        )

    def _left_out_files(self) -> list[str]:
        """Returns what lies in the directories of the data but is not part of it, with counts."""
        used = {file for pairs in self._pairs.values() for pair in pairs.values() for file in pair}
        counts: dict[Path, Counter[str]] = defaultdict(Counter)
        for directory in _outermost(self.directories()):
            listing = list_images(directory)
            counts[directory].update(listing.left_out)
            for image in listing.images:
                if image not in used:
                    counts[directory]["images in no split, or without a partner"] += 1
        return [
            f"{count} files left out of {directory}: {reason}"
            for directory in sorted(counts)
            for reason, count in sorted(counts[directory].items())
        ]

    def _find_source(self, source: Path) -> Path:
        for root in self.ROOTS:
            if (source / root / self.LANDMARK).is_dir():
                return source / root
        reason = f"no {self.LANDMARK}/ in it" if source.is_dir() else "no such directory"
        raise DeepLabError(f"{source}: {reason}; {self.LAYOUT}")


def image_files(directory: Path) -> list[Path]:
    """Returns the images anywhere below a directory, sorted by path, without hidden ones."""
    return list_images(directory).images


def pairs_by_name(
    images: Iterable[Path], name_of: Callable[[Path], str], mask_of: Callable[[Path], Path]
) -> dict[str, Pair]:
    """Returns pairs by the images' names.

    Raises:
      DeepLabError: two images have one name, so that one would take the place of the other.
    """
    pairs: dict[str, Pair] = {}
    for image in images:
        name = name_of(image)
        if name in pairs:
            raise DeepLabError(
                f"{image} and {pairs[name].image} have one name; rename one, since images and "
                "masks are matched by name"
            )
        pairs[name] = Pair(image, mask_of(image))
    return pairs


def _outermost(directories: set[Path]) -> list[Path]:
    """Returns the directories that lie in no other of them."""
    return [path for path in directories if not directories & set(path.parents)]


def _exif_reason(image_orientation: int, mask_orientation: int) -> str:
    if image_orientation == mask_orientation == 1:
        return ""
    return (
        f" (after turning by EXIF orientation: {image_orientation} of the image, "
        f"{mask_orientation} of the mask)"
    )


SPLITS = ("train", "val")


class ListedFilesBuilder(PairedFilesBuilder, skip_registration=True):
    """Reads the images that the lists name; a subclass says where lists and masks may lie."""

    LANDMARK = "JPEGImages"
    # Directories below the source; the first that is there counts.
    MASKS: tuple[str, ...]
    LISTS: tuple[str, ...]

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        masks, lists = self._first(self.MASKS), self._first(self.LISTS)
        return {split: self._pairs_of(lists / f"{split}.txt", masks) for split in SPLITS}

    def _pairs_of(self, listed: Path, masks: Path) -> dict[str, Pair]:
        images = self.source / self.LANDMARK
        return {
            stem: Pair(images / f"{stem}.jpg", masks / f"{stem}.png")
            for stem in listed_stems(listed)
        }

    def _first(self, directories: tuple[str, ...]) -> Path:
        for directory in directories:
            if (self.source / directory).is_dir():
                return self.source / directory
        raise DeepLabError(f"{self.source}: no {directories[0]}/ in it; {self.LAYOUT}")


def listed_stems(path: Path) -> list[str]:
    """Returns the stems of a list; some in circulation hold paths, and further columns."""
    lines = read_text(path, "list of images").splitlines()
    return [Path(line.split()[0]).stem for line in lines if line.strip()]
