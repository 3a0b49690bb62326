"""Base classes of the builders that read an image file and a mask file for each example."""

import abc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.base import LoadedExample, SegmentationBuilder
from deeplab_jax.data.builders.findings import Facts
from deeplab_jax.data.descriptors import Color, read_text
from deeplab_jax.data.images import StorableImage, one_large_at_a_time, storable_image
from deeplab_jax.data.masks import MaskFile, open_mask, read_mask
from deeplab_jax.data.orientation import aligned_label, turned, turned_back
from deeplab_jax.data.volumes import refuse_volumes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.listing import MASK_SUFFIXES, absence, list_images

# Remark on an example, see `Facts.notes`.
DRAWN_ON_STORED = (
    "mask was drawn on the stored pixels of an image with an EXIF orientation, "
    "and is rotated like the image"
)


class Pair(NamedTuple):
    """Paths of the image and the mask of one example; one of the files may be missing."""

    image: Path
    mask: Path


class PairedFilesBuilder(SegmentationBuilder):
    """Base class of builders that read pairs of image and mask files; subclasses find the pairs."""

    # Possible root directories of the dataset, relative to `source`. The root depends on how the
    # archives of the dataset were unpacked.
    ROOTS: tuple[str, ...] = (".",)
    # Subdirectory by which the root is recognized, and the expected layout, for errors.
    LANDMARK: str
    LAYOUT: str
    # Maps each legal mask value to a class or void.
    LABELS: Mapping[int, int]

    def __init__(
        self,
        *,
        source: str | Path,
        masks_drawn_on: str | None = None,
        page: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Finds the pairs of image and mask.

        Args:
          source: directory of the raw files.
          masks_drawn_on: pixels on which masks of images with an EXIF orientation were drawn:
            `displayed` (with the orientation applied) or `stored`. It is used only for masks
            whose size permits both. None: such a mask is an error, unless `displayed` and `stored`
            give the same label.
          page: number of the page to read from TIFF files with several pages, from 1. None: TIFF
            files with several pages are an error.
          **kwargs: arguments of `SegmentationBuilder`.

        Raises:
          DeepLabError: the source does not exist or does not have the expected layout.
        """
        self.source = find_root(as_path(source), self.LANDMARK, self.LAYOUT, self.ROOTS)
        self._masks_drawn_on, self._page = masks_drawn_on, page
        super().__init__(**kwargs)
        self._pairs = {split: pairs for split, pairs in self.find_pairs().items() if pairs}
        self._files = {
            file for pairs in self._pairs.values() for pair in pairs.values() for file in pair
        }
        if not self._pairs:
            refuse_volumes(self.source)
            raise DeepLabError(f"{self.source}: no images found; {self.LAYOUT}")

    @abc.abstractmethod
    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        """Returns the pairs by split and image id, in the order in which examples are stored."""

    def read_label(self, mask: MaskFile) -> np.ndarray:
        """Returns the class of each pixel of a mask, or void.

        The default implementation converts mask values as `LABELS` defines. The result is [H, W],
        uint8 with void = 255 for up to 255 classes, else uint16 with void = 65535.
        """
        return read_mask(mask, self.LABELS)

    def read_storable_image(self, path: Path) -> StorableImage:
        """Reads an image and encodes it for the prepared dataset."""
        return storable_image(path, page=self._page)

    def directories(self) -> set[Path]:
        """Returns the directories of images and masks.

        The method `notes` counts the files in these directories that no example uses.
        """
        return {file.parent for file in self._files}

    def image_ids(self) -> dict[str, Sequence[str]]:
        return {split: list(pairs) for split, pairs in self._pairs.items()}

    def load(self, split: str, image_id: str) -> LoadedExample:
        pair = self._pairs[split][image_id]
        with one_large_at_a_time(*pair):
            image = self.read_storable_image(pair.image)
            mask = open_mask(pair.mask, self._page)
            label, drawn_on_stored = self._aligned(self.read_label(mask), mask, image, pair)
        notes = (*image.notes, *([DRAWN_ON_STORED] if drawn_on_stored else []))
        facts = Facts(image.digest, notes, str(pair.mask), self.used_colors(mask))
        return LoadedExample(image.encoded, label, facts)

    def used_colors(self, mask: MaskFile) -> Mapping[int, Color]:
        """Returns the palette color of each index that occurs in a mask.

        The dataset is refused if an index has different colors in two masks.
        """
        return mask.used_colors()

    def notes(self) -> list[str]:
        return super().notes() + self._left_out_files()

    def _aligned(
        self, label: np.ndarray, mask: MaskFile, image: StorableImage, pair: Pair
    ) -> tuple[np.ndarray, bool]:
        """Returns a label in the orientation in which its image is displayed.

        Returns:
          The label, and whether it was rotated like the image, because the mask was drawn on the
          stored pixels of the image.

        Raises:
          DeepLabError: mask and image differ in size, or `masks_drawn_on` is required.
        """
        stored = turned(turned_back(label, mask.orientation), image.orientation)
        if image.size not in (label.shape, stored.shape):
            height, width = image.size
            raise DeepLabError(
                f"{pair.mask}: the mask is {label.shape[0]}x{label.shape[1]} (height x width), but "
                f"its image {pair.image.name} is {height}x{width}; they must have the same size"
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
        """Returns one remark per directory and reason, with the number of unused files."""
        lines, directories = [], self.directories()
        # Subdirectories are counted with the directory that contains them.
        for directory in sorted(path for path in directories if not directories & {*path.parents}):
            images, left_out = list_images(directory, MASK_SUFFIXES)
            unused = {
                "in no split, or without a matching image or mask": len({*images} - self._files)
            }
            lines += [
                f"{count} files left out in {directory}: {reason}"
                for reason, count in sorted((left_out + Counter(unused)).items())
            ]
        return lines


def find_root(source: Path, landmark: str, layout: str, roots: Sequence[str] = (".",)) -> Path:
    """Returns the root directory of a dataset: the source, or a directory below it.

    Args:
      source: directory given by the user.
      landmark: name of a directory that the root contains.
      layout: expected layout, for the error message.
      roots: possible roots, relative to the source; the first that contains the landmark is
        returned.

    Raises:
      DeepLabError: no possible root contains the landmark.
    """
    for root in roots:
        if (source / root / landmark).is_dir():
            return source / root
    refuse_volumes(source)
    reason = f"no {landmark}/ in it" if source.is_dir() else "no such directory"
    if source.is_file():
        reason = "a file, not a directory (an archive must be unpacked)"
    elif source.is_symlink() and not source.exists():
        reason = absence(source)
    raise DeepLabError(f"{source}: {reason}; {layout}")


def files_by_name(directory: Path, name_of: Callable[[Path], str]) -> dict[str, Path]:
    """Returns {name: path} of all images below a directory, sorted by path.

    Args:
      directory: directory to search, including subdirectories.
      name_of: maps a path, relative to the directory, to a name.

    Raises:
      DeepLabError: two images have the same name.
    """
    files: dict[str, Path] = {}
    for path in list_images(directory).images:
        name = name_of(path.relative_to(directory))
        if files.setdefault(name, path) != path:
            raise DeepLabError(
                f"{path} and {files[name]} have the same name; rename one, since images and masks "
                "are matched by name"
            )
    return files


def pairs_by_stem(images: Path, masks: Path) -> dict[str, Pair]:
    """Pairs each image below `images` with the mask `masks/STEM.png`.

    STEM is the name of the image without file extension.

    Returns:
      {stem: pair}.
    """
    stems = files_by_name(images, lambda path: path.stem)
    return {stem: Pair(image, masks / f"{stem}.png") for stem, image in stems.items()}


def _exif_reason(image_orientation: int, mask_orientation: int) -> str:
    if image_orientation == mask_orientation == 1:
        return ""
    return (
        f" (after applying the EXIF orientations, {image_orientation} of the image and "
        f"{mask_orientation} of the mask)"
    )


class ListedFilesBuilder(PairedFilesBuilder):
    """Base class of builders that read the names of images from text files, one file per split."""

    LANDMARK = "JPEGImages"
    # Possible directories of masks and of lists; the first that exists is read.
    MASKS: tuple[str, ...]
    LISTS: tuple[str, ...]

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        masks, lists = self._first(self.MASKS), self._first(self.LISTS)
        return {
            split: self.listed_pairs(listed_stems(lists / f"{split}.txt"), masks)
            for split in ("train", "val")
        }

    def listed_pairs(self, stems: Sequence[str], masks: Path) -> dict[str, Pair]:
        """Pairs each image `JPEGImages/STEM.jpg` with the mask `STEM.png`.

        Args:
          stems: names of the images without file extension.
          masks: directory of the masks.

        Returns:
          {stem: pair of image and mask}.
        """
        images = self.source / self.LANDMARK
        return {stem: Pair(images / f"{stem}.jpg", masks / f"{stem}.png") for stem in stems}

    def _first(self, directories: tuple[str, ...]) -> Path:
        for directory in directories:
            if (self.source / directory).is_dir():
                return self.source / directory
        raise DeepLabError(f"{self.source}: no {directories[0]}/ in it; {self.LAYOUT}")


def listed_stems(path: Path) -> list[str]:
    """Returns the stems (names without file extension) of the images in a list file.

    Only the first column of each line is read. It may be a name or a path.
    """
    lines = read_text(path, "list of images").splitlines()
    return [Path(line.split()[0]).stem for line in lines if line.strip()]
