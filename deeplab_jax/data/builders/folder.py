"""A user's own `images/` and `masks/`, matched by name."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, files_by_name
from deeplab_jax.data.descriptors import Color, folder_classes
from deeplab_jax.data.images import StorableImage, storable_image
from deeplab_jax.data.masks import (
    MaskFile,
    constant_color,
    identity_labels,
    mask_values,
    open_mask,
    read_colored_mask,
    read_mask,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import list_images
from deeplab_jax.labels import VOID_LABEL, label_dtype, void_label

SPLITS = ("train", "val", "test")
# One image of this number goes to val where the folders define no splits.
VAL_SHARE = 5
BINARY_LABELS = {0: 0, VOID_LABEL: 1}


class Folder(PairedFilesBuilder, skip_registration=True):
    """Reads images and masks with equal names, the suffix apart.

    Folders `train/` and `val/` (`test/`) in both define the splits; without them a fifth of the
    images, chosen by a hash of the name, becomes val. Masks hold indices (palette or gray, 16-bit
    above 255 classes), 0 and 255 for two classes (as values, or as opacity over one constant
    color), or the colors of a color map.
    """

    LANDMARK = "images"
    LAYOUT = "a folder source holds images/ and masks/ (or give the masks' directory)"

    def __init__(
        self,
        *,
        source: str | Path,
        masks: str | Path | None = None,
        classes: str | Path | None = None,
        color_map: str | Path | None = None,
        intensity_range: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Finds pairs and classes.

        Args:
          source: directory that holds `images/`.
          masks: directory of the masks (default: `masks/` in the source).
          classes: file of class names, see `folder_classes`.
          color_map: file of class colors, see `read_color_map`.
          intensity_range: see `read_image`.
          **kwargs: arguments of `PairedFilesBuilder`.

        Raises:
          DeepLabError: a directory is missing, fewer than two classes are given, or the range is
            empty.
        """
        source = Path(source).expanduser()
        self._masks = Path(masks).expanduser() if masks else source / "masks"
        if not self._masks.is_dir():
            raise DeepLabError(f"{self._masks}: no such directory; {self.LAYOUT}")
        if intensity_range and not intensity_range[0] < intensity_range[1]:
            low, high = intensity_range
            raise DeepLabError(f"intensity_range {low:g},{high:g}: give LOW below HIGH")
        descriptor, self._color_labels = folder_classes(source, classes, color_map)
        self.descriptor = dataclasses.replace(descriptor, intensity_range=intensity_range)
        super().__init__(source=source, **kwargs)
        dtype = label_dtype(descriptor.num_classes)
        if self._color_labels is None:
            self._read_label = functools.partial(read_mask, dtype=dtype, **self._index_encoding())
        else:
            self._read_label = functools.partial(
                read_colored_mask, labels=self._color_labels, dtype=dtype
            )

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        images = self.source / "images"
        splits = [split for split in SPLITS if (images / split).is_dir()]
        if splits:
            return {split: _match(images / split, self._masks / split) for split in splits}
        pairs = _match(images, self._masks)
        held_out = _held_out(list(pairs))
        self.reporter.message(
            f"no train/ and val/ in {images}: {len(held_out)} of {len(pairs)} images, chosen by a "
            "hash of their names, become val"
        )
        return {
            "train": {name: pair for name, pair in pairs.items() if name not in held_out},
            "val": {name: pair for name, pair in pairs.items() if name in held_out},
        }

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return self._read_label(mask)

    def read_storable_image(self, path: Path) -> StorableImage:
        return storable_image(path, self.descriptor.intensity_range)

    def directories(self) -> set[Path]:
        return {self.source / "images", self._masks}

    def used_colors(self, mask: MaskFile) -> Mapping[int, Color]:
        # With a color map the colors are the classes, and indices may differ from file to file.
        return {} if self._color_labels else super().used_colors(mask)

    def _index_encoding(self) -> dict[str, Any]:
        """Returns the arguments of `read_mask`; reports the encoding if inferred from the files.

        In masks of two classes that hold only 0 and 255, 255 is the second class.
        """
        names, masks = self.descriptor.class_names, list_images(self._masks).images
        if len(names) == 2:
            if _differ_in_opacity(masks):
                self.reporter.message(
                    "the masks have one color and differ only in opacity, 0 or 255: opaque pixels "
                    f"are read as {names[1]!r}"
                )
                return {"labels": BINARY_LABELS, "in_opacity": True}
            if not any(map(_holds_indices, masks)):
                self.reporter.message(f"the masks hold only 0 and 255: 255 is {names[1]!r}")
                return {"labels": BINARY_LABELS}
        if len(names) > VOID_LABEL:
            self.reporter.message(
                f"{len(names)} classes: masks hold 0..{len(names) - 1}, and "
                f"{void_label(len(names))} for void; {VOID_LABEL} is the class "
                f"{names[VOID_LABEL]!r}"
            )
        return {"labels": identity_labels(len(names))}


def _match(images: Path, masks: Path) -> dict[str, Pair]:
    """Returns pairs by name; a missing file has the path at which it was expected."""
    image_of, mask_of = (
        files_by_name(directory, lambda path: path.with_suffix("").as_posix())
        for directory in (images, masks)
    )
    return {
        name: Pair(
            image_of.get(name, images / f"{name}.*"), mask_of.get(name, masks / f"{name}.png")
        )
        for name in sorted(image_of.keys() | mask_of.keys())
    }


def _held_out(names: list[str]) -> set[str]:
    """Returns the names that go to val; files added later do not move the others."""
    digests = {
        name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        for name in names
    }
    chosen = {name for name, digest in digests.items() if digest % VAL_SHARE == 0}
    return chosen or set(sorted(names, key=digests.__getitem__)[: len(names) > 1])


def _holds_indices(mask: Path) -> bool:
    try:
        return bool(mask_values(mask) - {0, VOID_LABEL})
    except DeepLabError:
        # The check of the examples names the file.
        return False


def _differ_in_opacity(masks: list[Path]) -> bool:
    """Returns whether all masks have the same single color, and opacity holds 0 and 255."""
    colors, opacities = set(), set()
    for path in masks:
        try:
            mask = open_mask(path)
        except DeepLabError:
            # The check of the examples names the file.
            continue
        color = constant_color(mask)
        colors.add(color)
        if color is None or len(colors) > 1:
            return False
        opacities |= set(np.unique(mask.opacity()).tolist())
    return opacities == {0, 255}
