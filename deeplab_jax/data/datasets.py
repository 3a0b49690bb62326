"""Interface of datasets, in-memory datasets, and fingerprints that identify a dataset."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypedDict

import numpy as np

from deeplab_jax.data.descriptors import Bands, Descriptor, describe
from deeplab_jax.data.statistics import BandCounter
from deeplab_jax.errors import DeepLabError, shortened
from deeplab_jax.labels import (
    BINARY_FOREGROUND,
    BINARY_VALUES,
    MAX_CLASSES,
    VOID_LABEL,
    check_class_names,
    label_dtype,
    void_label,
)
from deeplab_jax.pixels import LARGEST_PIXEL


class Example(TypedDict):
    """An image with its label and its name.

    Attributes:
      image: uint8 or uint16 [H, W, C]; uint8 with C = 3 is RGB.
      label: class of each pixel [H, W]: uint8 with 255 for void in datasets of up to 255 classes,
        uint16 with 65535 for void in datasets of more classes.
      image_id: name of the image in reports and errors.
    """

    image: np.ndarray
    label: np.ndarray
    image_id: str


class Dataset(Protocol):
    """A sequence of examples; must be picklable for worker processes.

    Attributes:
      name: name of the dataset.
      split: name of the split.
      descriptor: classes, palette and bands.
    """

    name: str
    split: str
    descriptor: Descriptor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every image, int32 [num_images, 2]."""


def largest_size(dataset: Dataset) -> tuple[int, int]:
    """Returns the largest height and the largest width among the images of a dataset."""
    height, width = dataset.image_sizes().max(axis=0).tolist()
    return height, width


class ArrayDataset:
    """In-memory images and masks.

    Attributes:
      absent_classes: names of the classes that do not occur in any mask.
    """

    split = "arrays"

    def __init__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        masks: np.ndarray | Sequence[np.ndarray],
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
        binary: bool | None = None,
    ) -> None:
        """Checks the arrays and keeps them without a copy.

        Args:
          images: uint8 or uint16 [N, H, W, C], or a sequence of [H, W, C] of any sizes. All images
            must have the same dtype and number of bands C; uint8 with C = 3 is RGB.
          masks: integers [N, H, W], or a sequence of [H, W]: classes 0, 1, … and 255 for void, but
            see `binary`. With more than 255 classes, 65535 is void, and 255 is a class.
          class_names: name of each class (default: "class 0", "class 1" and so on, up to the
            largest mask value below 255; required for more than 255 classes).
          name: name of the dataset in errors and reports (default: "arrays").
          binary: whether 255 is class 1 instead of void; other values than 0 and 255 are then
            illegal. Default: True if the masks contain exactly the values 0 and 255, and
            `class_names` has two names or is not given. Set `binary` explicitly if the arrays are
            only one split of a dataset: its masks may lack values that occur in the other splits.

        Raises:
          DeepLabError: shapes, dtypes or values are invalid, the number or dtype of the bands
            differs between images, there are fewer than two classes, or two classes have
            the same name.
        """
        if len(images) != len(masks):
            raise DeepLabError(
                f"{name}: {len(images)} images, but {len(masks)} masks; give one mask per image"
            )
        if not len(images):
            raise DeepLabError(f"{name}: there are no images; give at least one image and its mask")
        for position, (image, mask) in enumerate(zip(images, masks, strict=True)):
            _check_pair(f"{name}[{position}]", image, mask)
            _check_equal_bands(f"{name}[{position}]", image, f"{name}[0]", images[0])
        values = label_values(masks)
        if binary is None:
            binary = are_binary(values, class_names)
        if binary:
            _check_binary(name, values)
            values = np.where(values == BINARY_FOREGROUND, 1, values)
        num_classes = len(class_names or ()) or _number_of_classes(name, values, binary)
        void, self._dtype = void_label(num_classes), label_dtype(num_classes)
        classes = values[values != void]
        if classes.min(initial=0) < 0 or classes.max(initial=0) >= num_classes:
            raise DeepLabError(
                f"{name}: the mask values are {classes.tolist()}; expected class indices "
                f"0..{num_classes - 1}, or {void} for void"
            )
        class_names = class_names or [f"class {index}" for index in range(num_classes)]
        check_class_names(class_names, name)
        self._images, self._masks, self._binary = images, masks, binary
        self.name = name
        self.descriptor = dataclasses.replace(describe(name, class_names), bands=_bands(images))
        self.absent_classes = tuple(
            name for index, name in enumerate(class_names) if index not in classes
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        image, mask = np.asarray(self._images[index]), np.asarray(self._masks[index])
        label = (mask == BINARY_FOREGROUND) if self._binary else mask
        return Example(image=image, label=label.astype(self._dtype), image_id=str(index))

    def content(self) -> Iterator[bytes]:
        """Yields bytes that identify the examples: shapes and values of all images and masks."""
        for image, mask in zip(self._images, self._masks, strict=True):
            yield from array_content(np.asarray(image), np.asarray(mask))

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every image, int32 [num_images, 2]."""
        return np.array([np.shape(mask) for mask in self._masks], np.int32)


def label_values(masks: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Returns the sorted values that occur in masks."""
    return np.unique(np.concatenate([np.unique(mask) for mask in masks]))


def are_binary(values: np.ndarray, class_names: Sequence[str] | None) -> bool:
    """Returns whether masks are binary: they contain exactly 0 and 255, and there are two classes.

    Without class names, two classes are assumed.

    Args:
      values: all values that occur in the masks.
      class_names: names of the classes, or None.
    """
    return set(values.tolist()) == BINARY_VALUES and len(class_names or ("", "")) == 2


# Maximum number of mask values that an error message lists.
SHOWN_VALUES = 5


def _check_binary(name: str, values: np.ndarray) -> None:
    wrong = sorted(set(values.tolist()) - BINARY_VALUES)
    if wrong:
        raise DeepLabError(
            f"{name}: the mask values {shortened(wrong, SHOWN_VALUES)} are illegal "
            "with binary=True, which requires the values 0 (class 0) and 255 (class 1); omit "
            "binary, or change these values"
        )


def _number_of_classes(name: str, values: np.ndarray, binary: bool) -> int:
    """Returns the number of classes: the largest mask value that is not void, plus 1.

    Args:
      name: name of the dataset, for the error.
      values: values that occur in the masks; 255 is void. If the masks are binary, 255 has already
        been replaced by 1.
      binary: whether the masks are binary; the result is then at least 2.

    Raises:
      DeepLabError: a value is above 255.
    """
    largest = int(values[values != VOID_LABEL].max(initial=int(binary)))
    if largest > VOID_LABEL:
        raise DeepLabError(
            f"{name}: the largest mask value is {largest}, but without class_names only "
            f"0..{VOID_LABEL - 1} (classes) and {VOID_LABEL} (void) are legal; for more than "
            f"{VOID_LABEL} classes, give class_names, and use {MAX_CLASSES} for void"
        )
    return largest + 1


def array_content(image: np.ndarray, label: np.ndarray) -> Iterator[bytes]:
    """Yields bytes that identify an image and a label, independently of the dtype of the label."""
    for array in (image, label.astype("<i4")):
        yield repr(array.shape).encode()
        yield np.ascontiguousarray(array).tobytes()


def _check_pair(origin: str, image: np.ndarray, mask: np.ndarray) -> None:
    image, mask = np.asarray(image), np.asarray(mask)
    if image.dtype.name not in LARGEST_PIXEL or image.ndim != 3 or not image.size:
        raise DeepLabError(
            f"{origin}: the image is {image.dtype}{list(image.shape)}; give uint8[H, W, 3] for "
            "RGB 0..255, or uint8 or uint16[H, W, C] for other bands"
        )
    if not np.issubdtype(mask.dtype, np.integer) or mask.shape != image.shape[:2]:
        raise DeepLabError(
            f"{origin}: the mask is {mask.dtype}{list(mask.shape)}; give the class of each pixel "
            f"as integers of shape {list(image.shape[:2])}"
        )


def _check_equal_bands(
    origin: str, image: np.ndarray, first_origin: str, first: np.ndarray
) -> None:
    own, other = (np.asarray(each) for each in (image, first))
    if (own.dtype, own.shape[2]) != (other.dtype, other.shape[2]):
        raise DeepLabError(
            f"{origin}: the image has {own.shape[2]} bands of {own.dtype}, but {first_origin} has "
            f"{other.shape[2]} of {other.dtype}; all images must have the same bands"
        )


def _bands(images: np.ndarray | Sequence[np.ndarray]) -> Bands:
    """Returns the bands of images, with mean and std of each band unless the images are RGB."""
    first = np.asarray(images[0])
    bands = Bands(first.shape[2], first.dtype.name)
    if bands.are_rgb:
        return bands
    counter = BandCounter(bands.count)
    for image in images:
        counter.add(np.asarray(image))
    mean, std = counter.result()
    return dataclasses.replace(bands, mean=mean, std=std)


def range_doubt(limits: tuple[float, float] | None, owner: str, dataset: Dataset) -> str:
    """Returns a warning if `prepare` may have scaled a dataset to 8 bits unlike other images.

    Args:
      limits: intensity range of the other images; None: each is scaled by its own range.
      owner: model or dataset of the other images, for the warning.
      dataset: dataset whose intensity range is compared.

    Returns:
      The warning; "" if the intensity ranges are equal, or if `prepare` did not write the dataset.
    """
    # Only prepared datasets contain encoded images.
    if not hasattr(dataset, "encoded"):
        return ""
    theirs = dataset.descriptor.intensity_range
    if tuple(limits or ()) == tuple(theirs or ()):
        return ""
    ours, other = (
        f"the intensity range {one[0]:g},{one[1]:g}" if one else "the range of each image"
        for one in (limits, theirs)
    )
    return (
        f"{owner} maps images of more than 8 bits to 8 bits by {ours}, but {dataset.name} was "
        f"prepared with {other}; if its files have more than 8 bits, prepare it again with the "
        "same --intensity_range"
    )


# Number of examples that a fingerprint reads in full; reading all of them would take minutes.
SAMPLED = 64


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Returns values that identify a dataset; they do not depend on its location on disk.

    Args:
      dataset: any dataset, with or without a method `content`.

    Returns:
      JSON-ready values: `name`, `split`, `num_images`, `class_names`, and `content`, a hexadecimal
      digest. The digest is computed from the bytes that `dataset.content()` yields. Without this
      method, it is computed from the names, images and labels of at most 64 evenly spaced examples.
    """
    own = getattr(dataset, "content", None)
    digest = hashlib.blake2b(digest_size=16)
    for part in _decoded(dataset) if own is None else own():
        # With the lengths, the parts b"ab", b"c" and b"a", b"bc" have different digests.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return {
        "name": dataset.name,
        "split": dataset.split,
        "num_images": len(dataset),
        "class_names": list(dataset.descriptor.class_names),
        "content": digest.hexdigest(),
    }


def sampled_positions(length: int) -> list[int]:
    """Returns at most 64 evenly spaced positions in a dataset of `length` examples.

    The first and the last example are included.
    """
    spaced = np.linspace(0, length - 1, min(length, SAMPLED))
    return spaced.round().astype(int).tolist()


def _decoded(dataset: Dataset) -> Iterator[bytes]:
    for position in sampled_positions(len(dataset)):
        example = dataset[position]
        yield str(example["image_id"]).encode()
        yield from array_content(example["image"], example["label"])


def fingerprint_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns one text for each field in which two fingerprints differ, such as "split: a → b".

    A difference of the digest `content` is returned only if no other field differs.

    Args:
      before: earlier result of `fingerprint`.
      now: new result of `fingerprint`.
    """
    fields = [name for name in now if name in before and before[name] != now[name]]
    # A different digest is reported only if no other field explains it.
    named = [name for name in fields if name != "content"] or fields
    return [_difference(name, before[name], now[name]) for name in named]


def _difference(field: str, before: Any, now: Any) -> str:
    if field == "content":
        return "content: images or labels differ"
    if field == "class_names" and len(before) == len(now):
        pairs = zip(before, now, strict=True)
        changed = [f"{old} → {new}" for old, new in pairs if old != new]
        return f"class_names: {', '.join(changed[:5])}"
    return f"{field}: {before} → {now}"
