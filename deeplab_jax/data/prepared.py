"""Finds prepared TFDS datasets on disk, and opens them by name."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deeplab_jax.data.bucket_copy import local_copy
from deeplab_jax.data.codecs import decode_bands, decode_image, decode_label, encoded_size
from deeplab_jax.data.datasets import Example, sampled_positions
from deeplab_jax.data.descriptors import RGB, Bands, Descriptor, describe
from deeplab_jax.errors import DeepLabError, check_name, shortened
from deeplab_jax.files import as_path, is_local
from deeplab_jax.labels import (
    BINARY_FOREGROUND,
    BINARY_VALUES,
    check_class_names,
    label_dtype,
    void_label,
)
from deeplab_jax.listing import is_hidden
from deeplab_jax.reporter import Reporter

# TFDS writes this file last, so a directory that contains it is a complete dataset.
INFO_FILE = "dataset_info.json"
VERSION_PATTERN = re.compile(r"\d+\.\d+\.\d+")
# Maximum number of class names that an error lists.
SHOWN_NAMES = 5


def prepared_directory(name: str, data_dir: str | Path, reporter: Reporter | None = None) -> Path:
    """Returns the local directory of the newest prepared version of a dataset.

    If `data_dir` is in a bucket, this version is copied to the local cache directory first.

    Args:
      name: name of the dataset.
      data_dir: directory to which `deeplab-jax prepare` (or TFDS) wrote, or its copy in a bucket.
      reporter: receives a message before copying.

    Raises:
      DeepLabError: the dataset is not prepared. The message lists the prepared datasets.
    """
    root = as_path(data_dir)
    versions = _versions(root / name)
    legal = [] if versions else prepared_names(root)
    below = [other for other in legal if other.startswith(f"{name}/")]
    if len(below) == 1:
        versions = _versions(root / below[0])
    if versions:
        return versions[-1] if is_local(root) else local_copy(versions[-1], reporter)
    prepared = f"prepared there: {', '.join(legal)}" if legal else "no dataset is prepared there"
    raise DeepLabError(
        f"no dataset {name!r} under {root} ({prepared}); {_remedy(name, root, legal)}"
    )


def _remedy(name: str, root: Path, legal: Sequence[str]) -> str:
    """Returns what to do about a dataset that is not prepared.

    Args:
      name: name of the dataset.
      root: directory of the prepared datasets.
      legal: names of the prepared datasets.
    """
    # The name that `prepare --name` received is only a part of the name of the dataset.
    whole = next((other for other in legal if other.endswith(f"/{name}")), None)
    if whole:
        return f"give its whole name, {whole!r}"
    if not is_local(root):
        return "copy the directory of a prepared dataset there"
    dataset, _, configuration = name.partition("/")
    named = f" --name={configuration}" if configuration else ""
    return (
        f"prepare it with `deeplab-jax prepare {dataset}{named} --data_dir={root} …` (see --help)"
    )


def prepared_names(data_dir: Path) -> list[str]:
    """Returns the names of all prepared datasets in a directory, as `open_dataset` accepts them."""
    found = [*data_dir.glob(f"*/*/{INFO_FILE}"), *data_dir.glob(f"*/*/*/{INFO_FILE}")]
    datasets = {path.parent.parent for path in found if not is_hidden(path.parent, data_dir)}
    return sorted(str(path.relative_to(data_dir)) for path in datasets if _versions(path))


def _versions(directory: Path) -> list[Path]:
    """Returns the directories of the complete versions of a dataset, lowest version first."""
    versions = [path.parent for path in directory.glob(f"*/{INFO_FILE}")]
    finished = (path for path in versions if VERSION_PATTERN.fullmatch(path.name))
    return sorted(finished, key=lambda path: tuple(map(int, path.name.split("."))))


MASK_NAMES = ("label", "segmentation_mask", "mask", "segmentation_label", "annotation")
ID_NAMES = ("image_id", "image/filename", "file_name", "filename", "id")


class PreparedDataset:
    """A split of a prepared TFDS dataset, whose examples are decoded on access."""

    def __init__(
        self, directory: Path, name: str, split: str, class_names: Sequence[str] | None = None
    ) -> None:
        """Opens a split of a prepared dataset.

        Args:
          directory: TFDS directory of one version of the dataset.
          name: name of the dataset, for errors and reports.
          split: name such as `train`, or a TFDS expression such as `train+val`.
          class_names: names of the classes, required if the dataset does not contain them.

        Raises:
          DeepLabError: the split does not exist, the dataset has no images, masks or class names,
            it contains other names than `class_names`, or two classes have the same name.
        """
        builder = tfds.builder_from_directory(directory)
        bands = stored_bands(builder.info)
        names = _feature_names(builder.info.features, directory, bands.are_rgb)
        self._image, self._mask, self._id = names
        self.name, self.split = name, split
        self.descriptor = _descriptor(builder.info, self._mask, name, class_names)
        self._source = _data_source(builder, split, (self._image, self._mask))
        self._binary = _is_binary(builder, self._mask, self.descriptor)
        self._num_bytes = sum(builder.info.splits[part].num_bytes for part in _parts(split))
        self._pieces = [
            (piece.filename, range(piece.skip, piece.skip + piece.take))
            for piece in builder.info.splits[split].file_instructions
        ]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        stored = self._source[index]
        image_id = _text(stored[self._id]) if self._id else str(index)
        try:
            image, label = self._decoded(stored[self._image]), decode_label(stored[self._mask])
            if self._binary:
                label = (label == BINARY_FOREGROUND).astype(label.dtype)
            label = self._checked(image, label)
        except DeepLabError as error:
            raise DeepLabError(f"{self.name}, {self.split}, {image_id}: {error}") from error
        return Example(image=image, label=label, image_id=image_id)

    def num_shared(self, other: "PreparedDataset") -> int:
        """Returns the number of stored examples that are in this split and in another split."""
        ours, theirs = (
            {(file, index) for file, indices in dataset._pieces for index in indices}
            for dataset in (self, other)
        )
        return len(ours & theirs)

    def _decoded(self, encoded: bytes) -> np.ndarray:
        bands = self.descriptor.bands
        return decode_image(encoded) if bands.are_rgb else decode_bands(encoded, bands)

    def encoded(self, index: int) -> tuple[bytes, bytes]:
        """Returns the encoded image and the encoded mask of an example.

        An RGB image is a JPEG or PNG. An image with other bands is a gray PNG with the bands
        stacked vertically. The mask is a PNG.
        """
        stored = self._source[index]
        return stored[self._image], stored[self._mask]

    def content(self) -> Iterator[bytes]:
        """Yields bytes that identify the examples of the split.

        The bytes are the names, encoded images and encoded masks of at most 64 evenly spaced
        examples, and the total size of the split as TFDS recorded it. For a part of a split, such
        as `train[:100]`, the size is that of the whole split.
        """
        yield str(self._num_bytes).encode()
        for index in sampled_positions(len(self)):
            stored = self._source[index]
            yield str(stored[self._id]).encode() if self._id else b""
            yield stored[self._image]
            yield stored[self._mask]

    def _checked(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Checks that a label fits its image and the classes of the dataset.

        Returns:
          The label, uint8 for up to 255 classes, else uint16.

        Raises:
          DeepLabError: the sizes differ, or the label contains a value that is neither a class nor
            void.
        """
        num_classes = self.descriptor.num_classes
        if image.shape[:2] != label.shape:
            raise DeepLabError(
                f"the image is {image.shape[0]}x{image.shape[1]} (height x width), but the mask is "
                f"{label.shape[0]}x{label.shape[1]}; prepare the dataset again from images and "
                "masks of equal size"
            )
        void = void_label(num_classes)
        wrong = (label >= num_classes) & (label != void)
        if wrong.any():
            raise DeepLabError(
                f"illegal mask value {label[wrong][0]} (pixels with illegal values: {wrong.sum()}"
                f"); legal: classes 0..{num_classes - 1}, void {void}"
            )
        return label.astype(label_dtype(num_classes), copy=False)

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every image, int32 [num_images, 2]; reads only headers."""
        sizes = [encoded_size(stored[self._image]) for stored in self._source]
        bands = self.descriptor.bands
        # `encode_bands` stacks the bands vertically.
        return np.array(sizes, np.int32) // (1 if bands.are_rgb else bands.count, 1)


def open_dataset(
    name: str, data_dir: str | Path, split: str, *, class_names: Sequence[str] | None = None
) -> PreparedDataset:
    """Opens one split of a prepared dataset.

    Args:
      name: name such as `camvid`, or `folder/pets` for a named configuration.
      data_dir: directory to which `deeplab-jax prepare` (or TFDS) wrote.
      split: name such as `train`, or a TFDS expression such as `train+val` and `train[:100]`.
      class_names: names of the classes, required if the dataset does not contain them.

    Raises:
      DeepLabError: the dataset or split does not exist, the dataset has no images, masks or class
        names, it contains other names than `class_names`, or two classes have the same name.
    """
    return PreparedDataset(prepared_directory(name, data_dir), name, split, class_names)


def _is_binary(builder: tfds.core.DatasetBuilder, mask: str, descriptor: Descriptor) -> bool:
    """Returns whether label 255 means class 1 in a dataset, and not void.

    This is the case if there are two classes, the labels contain 0 and 255 but no other value, and
    the dataset was not written by `prepare`, which always writes 255 for void.

    Labels are read until one contains a value other than 0 and 255; usually, the first label does.

    Args:
      builder: TFDS builder of the dataset.
      mask: name of the TFDS feature that contains the labels.
      descriptor: classes of the dataset.
    """
    if descriptor.num_classes != 2 or "statistics" in (builder.info.metadata or {}):
        return False
    seen: set[int] = set()
    for split in builder.info.splits:
        for stored in _data_source(builder, split, (mask,)):
            seen |= set(np.unique(decode_label(stored[mask])).tolist())
            if not seen <= BINARY_VALUES:
                return False
    return seen == BINARY_VALUES


def stored_bands(info: tfds.core.DatasetInfo) -> Bands:
    """Returns the bands that `prepare` recorded, or RGB if the dataset has no such record."""
    stored = dict((info.metadata or {}).get("bands") or {})
    if not stored:
        return RGB
    lists = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
    return Bands(**(stored | lists))


def _feature_names(
    features: tfds.features.FeaturesDict, directory: Path, are_rgb: bool
) -> tuple[str, str, str | None]:
    """Returns the names of the TFDS features that contain an example's image, mask and name.

    The third result is None if no feature contains the name of the example.

    Raises:
      DeepLabError: there is no image or no mask, or the bands are RGB (`are_rgb`) but the images
        are neither 8-bit gray nor 8-bit RGB.
    """
    images = {
        name: feature.shape[-1]
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    one_channel = [name for name, channels in images.items() if channels == 1]
    # Some datasets declare masks as color images, but store gray images.
    mask = next((name for name in (*MASK_NAMES, *one_channel) if name in images), None)
    others = [name for name in images if name != mask]
    image = next((name for name in ("image", *others) if name in others), None)
    if mask is None or image is None:
        raise DeepLabError(
            f"{directory}: the dataset has the features {', '.join(features)}; expected an image "
            "and a mask"
        )
    feature = features[image]
    # Without this check, images that TFDS wrote with other channels would be read as 8-bit RGB.
    if are_rgb and (feature.shape[-1] not in (1, 3, None) or feature.np_dtype != np.uint8):
        raise DeepLabError(
            f"{directory}: the feature {image!r} is {np.dtype(feature.np_dtype)} with "
            f"{feature.shape[-1]} channels; expected uint8 images with one or three channels. "
            "Prepare the dataset again with such images"
        )
    return image, mask, next((name for name in ID_NAMES if name in features), None)


def _descriptor(
    info: tfds.core.DatasetInfo, mask: str, name: str, class_names: Sequence[str] | None
) -> Descriptor:
    metadata = info.metadata or {}
    # The TFDS feature `LabeledImage` has class names.
    labeled = getattr(info.features[mask], "names", None)
    stored = metadata.get("class_names") or labeled
    # TFDS names the classes "0", "1" and so on if only their number is known.
    numbers = [str(index) for index in range(len(class_names or ()))]
    if class_names and stored and list(stored) not in (list(class_names), numbers):
        raise DeepLabError(
            f"dataset {name!r} contains the class names {shortened(stored, SHOWN_NAMES)}, but "
            f"{shortened(class_names, SHOWN_NAMES)} are given; omit class_names "
            "(data.class_names of a config)"
        )
    names = class_names or stored
    if not names:
        raise DeepLabError(
            f"dataset {name!r} contains no class names; give class_names (data.class_names of a "
            "config)"
        )
    check_class_names(names, name)
    palette, intensity_range = metadata.get("palette"), metadata.get("intensity_range")
    described = describe(name, names, palette if palette and len(palette) == len(names) else None)
    limits = intensity_range and (*intensity_range,)
    return dataclasses.replace(described, intensity_range=limits, bands=stored_bands(info))


def _data_source(
    builder: tfds.core.DatasetBuilder, split: str, encoded: Sequence[str]
) -> Sequence[dict[str, Any]]:
    legal = list(builder.info.splits)
    for part in _parts(split):
        check_name("split", part, legal)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise DeepLabError(
            f"{builder.data_path} is stored as {builder.info.file_format.value}, which does not "
            "support random access; prepare it again with TFDS's file_format='array_record'"
        )
    decoders = {name: tfds.decode.SkipDecoding() for name in encoded}
    try:
        if builder.info.splits[split].num_examples:
            return builder.as_data_source(split=split, decoders=decoders)
    except ValueError as error:
        raise DeepLabError(f"split {split!r}: {error}") from error
    sizes = (f"{part} has {builder.info.splits[part].num_examples}" for part in legal)
    raise DeepLabError(
        f"split {split!r} contains no images; number of images per split: {', '.join(sizes)}"
    )


def _parts(split: str) -> list[str]:
    """Returns the names of the splits in an expression such as `train[:100]+val`."""
    return [part.partition("[")[0] for part in re.split(r"\s*\+\s*", split)]


def _text(value: bytes | str | np.generic) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
