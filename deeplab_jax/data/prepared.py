"""Opens prepared TFDS data sets by name, and where they lie on disk."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from deeplab_jax.data.datasets import Example, sampled_positions
from deeplab_jax.data.descriptors import Descriptor, check_several_classes, describe
from deeplab_jax.data.images import decode_image, decode_label, encoded_size
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.files import is_hidden
from deeplab_jax.labels import BINARY_FOREGROUND, BINARY_VALUES, label_dtype, void_label

# TFDS writes it last, so it tells a finished data set.
INFO_FILE = "dataset_info.json"
VERSION_PATTERN = re.compile(r"\d+\.\d+\.\d+")


def prepared_directory(name: str, data_dir: str | Path) -> Path:
    """Returns the directory of the newest prepared version of a data set.

    Raises:
      DeepLabError: there is none; what is there is named.
    """
    root = Path(data_dir).expanduser()
    versions = _versions(root / name)
    if versions:
        return versions[-1]
    legal = prepared_names(root)
    below = [other for other in legal if other.startswith(f"{name}/")]
    if len(below) == 1:
        return _versions(root / below[0])[-1]
    there = f"prepared there: {', '.join(legal)}" if legal else "nothing is prepared there"
    raise DeepLabError(
        f"no data set {name!r} under {root} ({there}); make it with "
        f"`deeplab-jax prepare {name.split('/')[0]} --data_dir={root} …` (--help says more)"
    )


def prepared_names(data_dir: Path) -> list[str]:
    """Returns the names under which `open_dataset` finds something."""
    found = [*data_dir.glob(f"*/*/{INFO_FILE}"), *data_dir.glob(f"*/*/*/{INFO_FILE}")]
    versions = {path.parent for path in found if VERSION_PATTERN.fullmatch(path.parent.name)}
    names = {version.parent for version in versions if not is_hidden(version, data_dir)}
    return sorted(str(name.relative_to(data_dir)) for name in names)


def _versions(directory: Path) -> list[Path]:
    """Returns the finished versions, the newest last."""
    found = [
        path.parent
        for path in directory.glob(f"*/{INFO_FILE}")
        if VERSION_PATTERN.fullmatch(path.parent.name)
    ]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))))


MASK_NAMES = ("label", "segmentation_mask", "mask", "segmentation_label", "annotation")
ID_NAMES = ("image_id", "image/filename", "file_name", "filename", "id")


class PreparedDataset:
    """A split of a prepared TFDS data set, decoded on access."""

    def __init__(
        self, directory: Path, name: str, split: str, class_names: Sequence[str] | None = None
    ) -> None:
        """Opens a split; see `open_dataset`."""
        builder = tfds.builder_from_directory(directory)
        self._image, self._mask, self._id = _feature_names(builder.info.features, directory)
        self.name, self.split = name, split
        self.descriptor = _descriptor(builder.info, self._mask, name, class_names)
        self._source = _data_source(builder, split, (self._image, self._mask))
        self._binary = _is_binary(builder, self._mask, self.descriptor)
        self._num_bytes = sum(builder.info.splits[part].num_bytes for part in _parts(split))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        stored = self._source[index]
        image_id = _text(stored[self._id]) if self._id else str(index)
        try:
            image, label = decode_image(stored[self._image]), decode_label(stored[self._mask])
            if self._binary:
                label = (label == BINARY_FOREGROUND).astype(label.dtype)
            label = self._checked(image, label)
        except DeepLabError as error:
            raise DeepLabError(f"{self.name}, {self.split}, {image_id}: {error}") from error
        return Example(image=image, label=label, image_id=image_id)

    def encoded(self, index: int) -> tuple[bytes, bytes]:
        """Returns an image and its mask as they are stored: JPEG or PNG, and PNG."""
        stored = self._source[index]
        return stored[self._image], stored[self._mask]

    def content(self) -> Iterator[bytes]:
        """Yields what identifies the examples: their size in bytes, and some in full.

        The size is that of the whole splits that this one is made of, as recorded by TFDS.
        """
        yield str(self._num_bytes).encode()
        for index in sampled_positions(len(self)):
            stored = self._source[index]
            yield str(stored[self._id]).encode() if self._id else b""
            yield stored[self._image]
            yield stored[self._mask]

    def _checked(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Returns the label in the dtype of its number of classes."""
        num_classes = self.descriptor.num_classes
        if image.shape[:2] != label.shape:
            raise DeepLabError(f"image {image.shape[:2]} and mask {label.shape} differ in size")
        void = void_label(num_classes)
        wrong = (label >= num_classes) & (label != void)
        if wrong.any():
            raise DeepLabError(
                f"mask value {label[wrong][0]} in {wrong.sum()} pixels is neither one of the "
                f"{num_classes} classes nor void ({void})"
            )
        return label.astype(label_dtype(num_classes), copy=False)

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every image from its header, int32 [num_images, 2]."""
        return np.array([encoded_size(stored[self._image]) for stored in self._source], np.int32)


def open_dataset(
    name: str, data_dir: str | Path, split: str, *, class_names: Sequence[str] | None = None
) -> PreparedDataset:
    """Opens one split of a data set that lies prepared under `data_dir`.

    Args:
      name: as in `camvid`, or `folder/pets` for a named configuration.
      data_dir: where `deeplab-jax prepare` (or TFDS) wrote.
      split: as in `train`; TFDS' expressions such as `train+val` and `train[:100]` work too.
      class_names: required where the data set does not store them.

    Raises:
      DeepLabError: it is not there, has no such split, or lacks an image, a mask or class names.
    """
    return PreparedDataset(prepared_directory(name, data_dir), name, split, class_names)


def _is_binary(builder: tfds.core.DatasetBuilder, mask: str, descriptor: Descriptor) -> bool:
    """Returns whether a foreign dataset of two classes holds 0 and 255, and nothing else.

    Usually the first label answers; `prepare` has decided it for the datasets that it writes.
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


def _feature_names(
    features: tfds.features.FeaturesDict, directory: Path
) -> tuple[str, str, str | None]:
    """Returns which features are the image, the mask and the name."""
    images = {
        name: feature.shape[-1]
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    one_channel = [name for name, channels in images.items() if channels == 1]
    # Some declare their masks as colour images although grey ones are stored.
    mask = next((name for name in (*MASK_NAMES, *one_channel) if name in images), None)
    others = [name for name in images if name != mask]
    image = next((name for name in ("image", *others) if name in others), None)
    if mask is None or image is None:
        raise DeepLabError(
            f"{directory} holds {', '.join(features)}: no image together with a mask"
        )
    _check_feature(features[image], image, directory)
    return image, mask, next((name for name in ID_NAMES if name in features), None)


def _check_feature(feature: tfds.features.Image, name: str, directory: Path) -> None:
    """Refuses images of a foreign dataset that would be cut down to 8-bit RGB."""
    if feature.shape[-1] not in (1, 3, None) or feature.np_dtype != np.uint8:
        raise DeepLabError(
            f"{directory}: the feature {name!r} is {np.dtype(feature.np_dtype)} with "
            f"{feature.shape[-1]} channels; images are uint8 with one or three: choose the "
            "channels that are meant and prepare the dataset with those"
        )


def _descriptor(
    info: tfds.core.DatasetInfo, mask: str, name: str, class_names: Sequence[str] | None
) -> Descriptor:
    metadata = info.metadata or {}
    names = metadata.get("class_names") or _labels(info.features[mask]) or class_names
    if not names:
        raise DeepLabError(f"data set {name!r} does not tell its classes; give class_names")
    palette, intensity_range = metadata.get("palette"), metadata.get("intensity_range")
    check_several_classes(names, name)
    described = describe(name, names, palette if palette and len(palette) == len(names) else None)
    if not intensity_range:
        return described
    return dataclasses.replace(described, intensity_range=tuple(intensity_range))


def _labels(feature: tfds.features.FeatureConnector) -> Sequence[str]:
    """Returns the class names of a `LabeledImage`, nothing for other features."""
    return getattr(feature, "names", None) or ()


def _data_source(
    builder: tfds.core.DatasetBuilder, split: str, encoded: Sequence[str]
) -> Sequence[dict]:
    legal = list(builder.info.splits)
    for part in _parts(split):
        if part not in legal:
            raise unknown_name("split", part, legal)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise DeepLabError(
            f"{builder.data_path} is stored as {builder.info.file_format.value}, which cannot be "
            "read at random; prepare it anew with TFDS' file_format='array_record'"
        )
    decoders = {name: tfds.decode.SkipDecoding() for name in encoded}
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except ValueError as error:
        raise DeepLabError(f"split {split!r}: {error}") from error


def _parts(split: str) -> list[str]:
    """Returns the names of the splits in an expression such as `train[:100]+val`."""
    return [part.partition("[")[0] for part in re.split(r"\s*\+\s*", split)]


def _text(value: bytes | str | np.generic) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
