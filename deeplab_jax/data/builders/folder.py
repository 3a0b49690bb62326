"""A user's own dataset of image files and mask files, which are matched by name."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.bands import check_pixel_type
from deeplab_jax.data.builders.base import LoadedExample, in_splits
from deeplab_jax.data.builders.folder_files import SPLIT_NAMES, SPLITS, Found, find_files
from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, find_root
from deeplab_jax.data.builders.pairing import Matching, match_names
from deeplab_jax.data.descriptors import RGB, Bands, Color, check_intensity_range, folder_classes
from deeplab_jax.data.images import StorableImage, file_bands, storable_image
from deeplab_jax.data.masks import (
    MaskFile,
    constant_color,
    identity_labels,
    mask_values,
    open_mask,
    read_colored_mask,
    read_mask,
)
from deeplab_jax.errors import DeepLabError, nearest_names
from deeplab_jax.labels import VOID_LABEL, label_dtype, void_label
from deeplab_jax.listing import absence, absolute

# Value of the argument `bands` that keeps all bands.
ALL_BANDS = "all"
BINARY_LABELS = {0: 0, VOID_LABEL: 1}
# Starts of keys of images and masks in a split.
SPLIT_FOLDERS = tuple(f"{split}/" for split in SPLITS)
# Up to this number of masks without an image, errors suggest the mask with the most similar name.
MANY_MASKS = 100


class Folder(PairedFilesBuilder):
    """Builder for a folder of images and masks, which are matched by their names.

    The folders `train/`, `val/` and, optionally, `test/` define the splits. Without these folders,
    a hash of the names chooses about a fifth of the images for val. Masks have one of three
    encodings:

    * class indices (palette, gray or `.npy`; 16 bits for more than 255 classes),
    * 0 and 255 for two classes, either as pixel values or as opacities (alpha) of pixels that all
      have the same color,
    * the colors of a color map.
    """

    LANDMARK = "."
    LAYOUT = (
        "a folder source contains images/ and masks/ (or give the masks' directory as --masks=DIR)"
    )

    def __init__(
        self,
        *,
        source: str | Path,
        masks: str | Path | None = None,
        classes: str | Path | None = None,
        color_map: str | Path | None = None,
        intensity_range: tuple[float, float] | None = None,
        bands: Sequence[int] | str | None = None,
        page: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Finds the pairs of image and mask, and determines the classes.

        Args:
          source: directory of the images and masks. Folders, such as `images/` and `masks/`, or
            file names, such as `a.jpg` and `a_mask.png`, distinguish images from masks.
          masks: directory of the masks (default: `masks/` in the source, if it exists).
          classes: file of class names, as text with one name per line or as JSON (default:
            `classes.txt` or `classes.json` in the source, else the names of the color map).
          color_map: file with the color of each class, as text lines `r g b name` or as JSON. None:
            masks contain class indices.
          intensity_range: (low, high), values of 16-bit and float images that become 0 and 255
            (default for each image: smallest range that contains 0 and all its pixel values).
          bands: bands to read, numbered from 1, or `all`. If exactly three are listed, they are
            converted to 8-bit red, green and blue. Otherwise their uint8 or uint16 values are kept.
            None: all images are converted to 8-bit RGB.
          page: number of the page to read from TIFF files with several pages, from 1; it is ignored
            for masks with one page. None: TIFF files with several pages are an error.
          **kwargs: arguments of `PairedFilesBuilder`.

        Raises:
          DeepLabError: a directory is missing; there are no images, no masks or fewer than two
            classes; no image has a mask; or `bands` or `intensity_range` is illegal. Band numbers
            above the number of bands in a file raise an error only when the file is read.
        """
        source = absolute(source)
        self._masks = absolute(masks) if masks else None
        if self._masks and not self._masks.is_dir():
            raise DeepLabError(f"{self._masks}: no such directory; {self.LAYOUT}")
        # Find the files first: without images, the error must not be that class names are missing.
        self._found = find_files(find_root(source, ".", self.LAYOUT), self._masks, self.LAYOUT)
        # Error message for each pair in which the image or the mask is missing.
        self._unmatched: dict[Pair, str] = {}
        check_intensity_range(intensity_range)
        descriptor, self._color_labels = folder_classes(source, classes, color_map)
        self._first, chosen = _first_bands(sorted(self._found.images.values()), bands, page)
        if intensity_range and not chosen.are_rgb:
            raise DeepLabError(
                f"intensity_range cannot be applied to {chosen}, because the values are stored "
                "unchanged; omit intensity_range, or choose three bands, which are mapped to 8 bits"
            )
        self.descriptor = dataclasses.replace(
            descriptor, intensity_range=intensity_range, bands=chosen
        )
        super().__init__(source=source, page=page, **kwargs)
        self._read_label = self._label_reader()

    def _label_reader(self) -> Callable[[MaskFile], np.ndarray]:
        """Returns the function that converts each mask file to class indices and void values."""
        dtype = label_dtype(self.descriptor.num_classes)
        if self._color_labels is None:
            return functools.partial(read_mask, dtype=dtype, **self._index_encoding())
        return functools.partial(read_colored_mask, labels=self._color_labels, dtype=dtype)

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        found = self._found
        matching = match_names(found.images, found.masks)
        self._report_rule(found, matching)
        placed = _placement(found, matching.mask_of)
        pairs = {
            placed(key): Pair(found.images[key], found.masks[mask])
            for key, mask in matching.mask_of.items()
        }
        for pair, key, reason in _unmatched(found, matching):
            name = placed(key)
            pairs[name if name not in pairs else f"{name} (mask)"] = pair
            self._unmatched[pair] = reason
        pairs = dict(sorted(pairs.items()))
        by_split = {
            split: {
                key.removeprefix(folder): pair
                for key, pair in pairs.items()
                if key.startswith(folder)
            }
            for split, folder in zip(SPLITS, SPLIT_FOLDERS, strict=True)
        }
        return by_split if any(by_split.values()) else in_splits({None: pairs}, self)

    def load(self, split: str, image_id: str) -> LoadedExample:
        if reason := self._unmatched.get(self._pairs[split][image_id]):
            raise DeepLabError(reason)
        return super().load(split, image_id)

    def _report_rule(self, found: Found, matching: Matching) -> None:
        """Reports the paths of one image and its mask, to show the user how names were matched.

        Nothing is reported if the keys of the two files are equal. For example, the key of both
        `images/train/a.jpg` and `masks/train/a.png` is `train/a`.
        """
        image, mask = next(iter(matching.mask_of.items()))
        if image != mask:
            self.reporter.message(
                "masks are matched to images by name, for example "
                f"{found.masks[mask]} to {found.images[image]}"
            )

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return self._read_label(mask)

    def read_storable_image(self, path: Path) -> StorableImage:
        descriptor = self.descriptor
        limits, bands = descriptor.intensity_range, descriptor.bands
        return storable_image(path, limits, bands=bands, first=self._first, page=self._page)

    def directories(self) -> set[Path]:
        usual = {self.source / "images", self._masks or self.source / "masks"}
        if all(map(Path.is_dir, usual)):
            return usual
        # Some of these files may be in no split.
        found = (*self._found.images.values(), *self._found.masks.values())
        return super().directories() | {path.parent for path in found}

    def used_colors(self, mask: MaskFile) -> Mapping[int, Color]:
        # With a color map, the colors define the classes; palette indices may differ between files.
        return {} if self._color_labels else super().used_colors(mask)

    def _index_encoding(self) -> dict[str, Any]:
        """Returns the keyword arguments with which `masks.read_mask` reads masks of class indices.

        For two classes, the files determine the encoding: if all masks together contain only the
        values 0 and 255, or one color with only the opacities 0 and 255, then 255 is the second
        class, and a message reports this.
        """
        names = self.descriptor.class_names
        masks = [pair.mask for pairs in self._pairs.values() for pair in pairs.values()]
        if len(names) == 2:
            if _differ_in_opacity(masks, self._page):
                self.reporter.message(
                    "the masks have one color and differ only in opacity, 0 or 255: opaque pixels "
                    f"are read as class {names[1]!r}"
                )
                return {"labels": BINARY_LABELS, "in_opacity": True}
            if _hold_only_binary_values(masks, self._page):
                self.reporter.message(
                    f"the masks contain only 0 and 255: 255 is read as class {names[1]!r}"
                )
                return {"labels": BINARY_LABELS}
        if len(names) > VOID_LABEL:
            self.reporter.message(
                f"with {len(names)} classes, masks contain 0..{len(names) - 1} for classes and "
                f"{void_label(len(names))} for void; {VOID_LABEL} is the class "
                f"{names[VOID_LABEL]!r}, not void"
            )
        return {"labels": identity_labels(len(names))}


def _first_bands(
    paths: Sequence[Path], wanted: Sequence[int] | str | None, page: int | None
) -> tuple[Path | None, Bands]:
    """Determines the bands of a dataset, if necessary from its first readable image.

    Args:
      paths: images of the dataset.
      wanted: numbers of the bands to read, from 1; `all`; or None for RGB.
      page: number of the page to read from TIFF files with several pages, from 1.

    Returns:
      Path of the image that was read (None if `wanted` alone determines the bands), and the bands.

    Raises:
      DeepLabError: `wanted` is illegal; no image can be read; or the dtype of the bands of the
        image is neither uint8 nor uint16.
    """
    if wanted is None:
        return None, RGB
    chosen = None if isinstance(wanted, str) else tuple(wanted)
    if isinstance(wanted, str) and wanted != ALL_BANDS:
        raise DeepLabError(f"bands={wanted!r} is illegal; give {ALL_BANDS!r}, or numbers from 1")
    if chosen is not None and (not chosen or min(chosen) < 1 or len(set(chosen)) < len(chosen)):
        raise DeepLabError(
            f"bands={','.join(map(str, chosen))} is illegal; give different numbers from 1, in the "
            "order in which the bands are to be stored"
        )
    if chosen is not None and len(chosen) == RGB.count:
        # Files may have different further bands, so each file is checked when it is read.
        return None, dataclasses.replace(RGB, chosen=chosen)
    first, found = _first_readable(paths, page)
    check_pixel_type(found, str(first))
    count = found.count if chosen is None else len(chosen)
    return first, Bands(count, found.dtype, chosen)


def _first_readable(paths: Sequence[Path], page: int | None) -> tuple[Path, Bands]:
    """Returns the first file that can be read, and its bands.

    Raises:
      DeepLabError: no file can be read. The message describes the error of the first file.
    """
    failure: DeepLabError | None = None
    for path in paths:
        try:
            return path, file_bands(path, page)
        except DeepLabError as error:
            failure = failure or error
    raise failure or DeepLabError("there is no image")


def _placement(found: Found, mask_of: Mapping[str, str]) -> Callable[[str], str]:
    """Returns a function that moves the split in the key of an image or mask to the front.

    The outermost folders of the images define the splits. If none of them is a split, inner folders
    define them, provided that each image is in one, and some are in train: `site/train/a` becomes
    `train/site/a`. Otherwise the folders of the masks define them, provided that some are in train:
    `a` becomes `train/a` if its mask is `train/a`.

    Args:
      found: images and masks by key.
      mask_of: {key of an image: key of its mask}.
    """

    def by_mask(key: str) -> str:
        if key.startswith(SPLIT_FOLDERS):
            return key
        # Images without a mask are reported with the first split.
        mask = mask_of.get(key, SPLIT_FOLDERS[0])
        return f"{mask.partition('/')[0]}/{key}" if mask.startswith(SPLIT_FOLDERS) else key

    if any(key.startswith(SPLIT_FOLDERS) for key in found.images):
        return lambda key: key
    train, moved = SPLIT_FOLDERS[0], [_split_first(key) for key in found.images]
    if all(moved) and any(key.startswith(train) for key in moved):
        return lambda key: _split_first(key) or key
    if any(key.startswith(train) for key in found.masks):
        return by_mask
    return lambda key: key


def _split_first(key: str) -> str:
    """Moves the outermost folder that names a split to the front; returns "" if there is none."""
    *folders, name = key.split("/")
    for at, folder in enumerate(folders):
        if split := SPLIT_NAMES.get(folder.lower()):
            return "/".join([split, *folders[:at], *folders[at + 1 :], name])
    return ""


def _unmatched(found: Found, matching: Matching) -> Iterator[tuple[Pair, str, str]]:
    """Yields the images without a mask, and the masks without an image.

    Yields:
      For each such file, a tuple of

      * the pair that consists of the file and the expected path of the missing file,
      * the key of the file, such as `train/a` for `images/train/a.jpg`,
      * the error message.
    """
    # For each folder in the keys, the folders on disk that contain its images and its masks.
    folders = {
        key.rpartition("/")[0]: (found.images[key].parent, found.masks[mask].parent)
        for key, mask in matching.mask_of.items()
    }
    any_folders = next(iter(folders.values()))
    for key in matching.without_mask:
        _, folder = folders.get(key.rpartition("/")[0], any_folders)
        expected = folder / f"{matching.rule.expected_mask(key)}.png"
        reason = absence(expected)
        if len(matching.without_image) <= MANY_MASKS:
            names = [found.masks[mask].name for mask in matching.without_image]
            nearest = nearest_names(expected.name, names)
            reason += f"; did you mean {nearest[0]!r}?" if nearest else ""
        image = found.images[key]
        yield Pair(image, expected), key, f"{image}: the image has no mask; {expected}: {reason}"
    example = _example(found, matching)
    for key in matching.without_image:
        mask = found.masks[key]
        folder, _ = folders.get(key.rpartition("/")[0], any_folders)
        expected = folder / f"{matching.rule.expected_image(key)}.jpg"
        reason = f"{expected}: {absence(expected)}; names must match as in {example}"
        yield Pair(expected, mask), key, f"{mask}: the mask has no image; {reason}"


def _example(found: Found, matching: Matching) -> str:
    image, mask = next(iter(matching.mask_of.items()))
    return f"{found.masks[mask].name} to {found.images[image].name}"


def _hold_only_binary_values(masks: Sequence[Path], page: int | None) -> bool:
    """Returns whether the readable masks together contain 255, and no values but 0 and 255."""
    values: set[int] = set()
    for mask in masks:
        # Errors are reported later, when all examples are checked.
        with contextlib.suppress(DeepLabError):
            values |= mask_values(mask, page)
        if values - {0, VOID_LABEL}:
            return False
    return VOID_LABEL in values


def _differ_in_opacity(masks: Sequence[Path], page: int | None) -> bool:
    """Returns whether the masks encode two classes by the opacities 0 and 255.

    This is the case if all pixels of all readable masks have the same color, and the opacities that
    occur in the masks are 0 and 255.
    """
    colors, opacities = set(), set()
    for path in masks:
        try:
            mask = open_mask(path, page)
        except DeepLabError:
            # Errors are reported later, when all examples are checked.
            continue
        color, opacity = constant_color(mask), mask.opacity()
        colors.add(color)
        if color is None or opacity is None or len(colors) > 1:
            return False
        opacities |= set(np.unique(opacity).tolist())
    return opacities == {0, 255}
