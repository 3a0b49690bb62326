"""A user's own `images/` and `masks/`, matched by name."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, image_files
from deeplab_jax.data.descriptors import Color, Descriptor, folder_classes
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
from deeplab_jax.labels import IGNORE_LABEL, label_dtype, void_label

SPLITS = ("train", "val", "test")
# One in so many goes to val where the folders do not say.
VAL_SHARE = 5


class Folder(PairedFilesBuilder, skip_registration=True):
    """Reads images and masks that share a name but for the suffix.

    Folders `train/` and `val/` (`test/`) in both give the splits; else a fifth, chosen by a hash of
    the name, becomes val. Masks hold indices (palette or grey, 16-bit above 255 classes), 0 and 255
    for two classes (as values, or as opacity over one constant color), or the colors of a color
    map.
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
          masks: directory of the masks; by default `masks/` in the source.
          classes: file of class names, see `folder_classes`.
          color_map: file of class colours, see `read_color_map`.
          intensity_range: see `read_image`.
          **kwargs: of `SegmentationBuilder`.

        Raises:
          DeepLabError: a directory is missing, the classes are not given or only one, or the
            range is empty.
        """
        source = Path(source).expanduser()
        self._masks = Path(masks).expanduser() if masks else source / "masks"
        if not self._masks.is_dir():
            raise DeepLabError(f"{self._masks}: no such directory; {self.LAYOUT}")
        if intensity_range and not intensity_range[0] < intensity_range[1]:
            low, high = intensity_range
            raise DeepLabError(f"intensity_range {low:g},{high:g}: give LOW below HIGH")
        descriptor, color_labels = folder_classes(source, classes, color_map)
        self._descriptor = dataclasses.replace(descriptor, intensity_range=intensity_range)
        super().__init__(source=source, **kwargs)
        self._painted = color_labels is not None
        dtype = label_dtype(descriptor.num_classes)
        if color_labels is None:
            self._read_label = functools.partial(self._index_reader(), dtype=dtype)
        else:
            self._read_label = functools.partial(
                read_colored_mask, labels=color_labels, dtype=dtype
            )

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

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
        return storable_image(path, self._descriptor.intensity_range)

    def directories(self) -> set[Path]:
        return {self.source / "images", self._masks}

    def used_colors(self, mask: MaskFile) -> dict[int, Color]:
        # With a color map the colors are the classes, and indices may differ from file to file.
        return {} if self._painted else super().used_colors(mask)

    def _index_reader(self) -> Callable[[MaskFile], np.ndarray]:
        """Two classes in masks of nothing but 0 and 255 mean that 255 is the second class."""
        names, masks = self._descriptor.class_names, image_files(self._masks)
        if len(names) == 2:
            binary = {0: 0, IGNORE_LABEL: 1}
            if _differ_in_opacity(masks):
                self.reporter.message(
                    "the masks have one colour and an opacity of 0 and 255: opaque pixels are "
                    f"{names[1]!r}"
                )
                return functools.partial(read_mask, labels=binary, in_opacity=True)
            if not any(map(_holds_indices, masks)):
                self.reporter.message(f"the masks hold only 0 and 255: 255 is {names[1]!r}")
                return functools.partial(read_mask, labels=binary)
        if len(names) > IGNORE_LABEL:
            void = void_label(len(names))
            self.reporter.message(
                f"{len(names)} classes: masks hold 0..{len(names) - 1}, and {void} for void; "
                f"{IGNORE_LABEL} is the class {names[IGNORE_LABEL]!r}"
            )
        return functools.partial(read_mask, labels=identity_labels(len(names)))


def _match(images: Path, masks: Path) -> dict[str, Pair]:
    """Returns pairs by name; where one of the two is missing its path says what was expected."""
    image_of, mask_of = _by_name(images), _by_name(masks)
    return {
        name: Pair(
            image_of.get(name, images / f"{name}.*"), mask_of.get(name, masks / f"{name}.png")
        )
        for name in sorted(image_of.keys() | mask_of.keys())
    }


def _by_name(directory: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in image_files(directory):
        name = path.relative_to(directory).with_suffix("").as_posix()
        if name in files:
            raise DeepLabError(
                f"{path} and {files[name].name} are of one name; rename one, since images and "
                "masks are matched by name"
            )
        files[name] = path
    return files


def _held_out(names: list[str]) -> set[str]:
    """Returns the names that go to val; adding files later moves none of the others."""
    digests = {
        name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        for name in names
    }
    chosen = {name for name, digest in digests.items() if digest % VAL_SHARE == 0}
    return chosen or set(sorted(names, key=digests.__getitem__)[: len(names) > 1])


def _holds_indices(mask: Path) -> bool:
    try:
        return bool(mask_values(mask) - {0, IGNORE_LABEL})
    except DeepLabError:
        # Reading the examples will name the file.
        return False


def _differ_in_opacity(masks: list[Path]) -> bool:
    """Returns whether all masks have one and the same color, and opacity holds 0 and 255."""
    colors, opacities = set(), set()
    for path in masks:
        try:
            mask = open_mask(path)
        except DeepLabError:
            # Reading the examples will name the file.
            continue
        color = constant_color(mask)
        colors.add(color)
        if color is None or len(colors) > 1:
            return False
        opacities |= set(np.unique(mask.opacity()).tolist())
    return opacities == {0, 255}
