"""Writes a dataset folder that contains labeled images, and images labeled by a model.

The labels that the model predicts are called pseudo-labels. The method "Naive-Student" (arXiv
2005.10266) alternates between training a model and writing pseudo-labels with it.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.checkpointing import digest_of_variables
from deeplab_jax.data.codecs import PNG_START, decode_bands, decode_image, decode_label
from deeplab_jax.data.datasets import Dataset, Example, fingerprint
from deeplab_jax.data.descriptors import Bands, Descriptor
from deeplab_jax.data.images import storable_image
from deeplab_jax.data.prepared import PreparedDataset
from deeplab_jax.declarations import FRACTION
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import check_empty, replacing, write_text
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.listing import check_member_path
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import write_class_map

# Defaults of the command `pseudo-label`.
MIN_CONFIDENCE = 0.9
OPTIONS = InferenceOptions(scales=(0.75, 1.0, 1.25), flip=True)
# Files of the folder. Images and masks of `train` are in these two subfolders.
SETTINGS_FILE, CLASSES_FILE = "pseudo_labels.json", "classes.json"
LABELED, PSEUDO = "labeled", "pseudo"


class Summary(NamedTuple):
    """Result of `write_pseudo_labels`.

    Attributes:
      num_labeled: number of labeled images, over all splits.
      num_pseudo: number of images with pseudo-labels.
      num_left_out: number of unlabeled images that are left out, because they are equal to a
        labeled or held-out image.
      kept: fraction of pixels that are not void, 0..1, over all pseudo-labels.
    """

    num_labeled: int
    num_pseudo: int
    num_left_out: int
    kept: float


def pseudo_label(probabilities: np.ndarray, min_confidence: float) -> np.ndarray:
    """Returns the most probable class of each confident pixel, and void for all other pixels.

    Args:
      probabilities: float32 [H, W, num_classes]; sums to 1 over the classes.
      min_confidence: minimum probability of the most probable class, in [0, 1). A pixel with a
        lower probability is void.

    Returns:
      Class indices [H, W], uint8 or uint16 as given by `label_dtype(num_classes)`.
    """
    num_classes = probabilities.shape[-1]
    confident = probabilities.max(axis=-1) >= min_confidence
    label = np.where(confident, probabilities.argmax(axis=-1), void_label(num_classes))
    return label.astype(label_dtype(num_classes))


def write_pseudo_labels(
    predictor: Predictor,
    labeled: Mapping[str, PreparedDataset],
    unlabeled: Mapping[str, Path | bytes],
    output: Path,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    page: int | None = None,
    held_out: Dataset | None = None,
    reporter: Reporter,
) -> Summary:
    """Writes a dataset folder with labeled images, and with images that a model labels.

    The command `prepare folder` accepts this folder as its source. To resume an interrupted call,
    repeat the call: examples whose mask exists in `output` are not written again.

    Args:
      predictor: model that labels the images, with the inference options.
      labeled: labeled images of each split of the folder. The pseudo-labels are added to `train`.
      unlabeled: {name of an image in the folder, without suffix: path or encoded bytes of this
        image}. Images that are equal to a labeled image in all pixels are left out.
      output: new or empty directory, or the folder of an interrupted call with the same settings.
      min_confidence: minimum probability of a predicted class, in [0, 1). Pixels below it are void.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.
      held_out: labeled images to test on, which are not written; equal images in `unlabeled` are
        left out, too (default: none).
      reporter: receives progress events.

    Raises:
      DeepLabError: `min_confidence` is not in [0, 1), the model and a dataset in `labeled` have
        different classes or bands, `output` contains files that were written with other settings or
        for other images, an image cannot be read, or all images in `unlabeled` are left out.
    """
    if not FRACTION.holds(min_confidence):
        raise DeepLabError(f"min_confidence={min_confidence} must be {FRACTION.words}")
    for dataset in labeled.values():
        check_same_data(predictor, dataset.descriptor)
    _open_folder(output, _settings(predictor, labeled, min_confidence))
    known = _write_all_labeled(predictor.class_names, labeled, held_out, output, reporter)
    palette, void = labeled["train"].descriptor.palette, void_label(len(predictor.class_names))
    bands, num_pseudo, kept, total = predictor.bands, 0, 0, 0
    for name, source in reporter.track(list(unlabeled.items()), "labeling, image"):
        image = _read(predictor, name, source, page)
        mask = output / "masks" / "train" / PSEUDO / f"{name}.png"
        path = _image_path(output / "images" / "train" / PSEUDO / name, image.encoded, bands)
        if not _is_labeled(image, name, path, mask):
            if _digest(image.pixels) in known:
                continue
            # No variable keeps the probabilities, which need much memory, for the next image.
            label = pseudo_label(predictor.predict(image.pixels).probabilities, min_confidence)
            _write_image(path, image.encoded, bands)
            write_class_map(mask, label, palette)
        label = decode_label(mask.read_bytes())
        num_pseudo, kept, total = num_pseudo + 1, kept + (label != void).sum(), total + label.size
    if not num_pseudo:
        raise DeepLabError(
            f"all {len(unlabeled)} unlabeled images are copies of labeled images; give other images"
        )
    num_labeled = sum(map(len, labeled.values()))
    return Summary(num_labeled, num_pseudo, len(unlabeled) - num_pseudo, float(kept / total))


class _Image(NamedTuple):
    encoded: bytes
    pixels: np.ndarray


def _read(predictor: Predictor, name: str, source: Path | bytes, page: int | None) -> _Image:
    """Reads an image with the bands that a model takes, and decodes it as in training."""
    limits, bands = predictor.intensity_range, predictor.bands
    encoded = storable_image(source, limits, name=name, bands=bands, page=page).encoded
    pixels = decode_image(encoded) if bands.are_rgb else decode_bands(encoded, bands)
    return _Image(encoded, pixels)


def named_images(found: Iterable[tuple[Path, Path]], output: Path) -> dict[str, Path]:
    """Returns the argument `unlabeled` of `write_pseudo_labels`: {name: path} of image files.

    The name of an image in a folder that was given to `find_images` is the path relative to this
    folder, without suffix. The name of another image is the name of the file, without suffix.

    Args:
      found: result of `find_images`: pairs of an image file and a path in `output`.
      output: directory that was given to `find_images`.

    Raises:
      DeepLabError: two images have the same name.
    """
    images: dict[str, Path] = {}
    for image, place in found:
        name = place.relative_to(output).with_suffix("").as_posix()
        if images.setdefault(name, image) != image:
            raise DeepLabError(
                f"{images[name]} and {image} have the same name without suffix; rename one of them"
            )
    return images


def check_same_data(predictor: Predictor, dataset: Descriptor) -> None:
    """Checks that a model and a dataset have equal classes, in the same order, and equal bands.

    Raises:
      DeepLabError: a class or the bands differ. The message contains the first difference.
    """
    own, theirs = predictor.class_names, dataset.class_names
    use = f"use a model that was trained on {dataset.name}"
    if len(own) != len(theirs):
        raise DeepLabError(
            f"{predictor.source} has {len(own)} classes, but {dataset.name} has {len(theirs)}; "
            f"{use}"
        )
    for index, (mine, other) in enumerate(zip(own, theirs, strict=True)):
        if mine != other:
            raise DeepLabError(
                f"class {index} of {predictor.source} is {mine!r}, but {other!r} in "
                f"{dataset.name}; {use}"
            )
    bands = predictor.bands
    if (bands.count, bands.dtype) != (dataset.bands.count, dataset.bands.dtype):
        raise DeepLabError(
            f"{predictor.source} takes {bands}, but {dataset.name} has {dataset.bands}; {use}"
        )


def _settings(
    predictor: Predictor, labeled: Mapping[str, PreparedDataset], min_confidence: float
) -> dict[str, Any]:
    """Returns the settings that determine the masks, with lists in place of tuples.

    The result can be compared with the settings of an earlier call, which are read from the JSON
    file `SETTINGS_FILE`. JSON has no tuples.
    """
    settings = {
        "model": predictor.source,
        "weights": digest_of_variables(predictor.variables),
        "temperature": predictor.temperature,
        "inference": predictor.options.describe(),
        "min_confidence": min_confidence,
        "labeled": {split: fingerprint(dataset) for split, dataset in labeled.items()},
    }
    read: dict[str, Any] = json.loads(json.dumps(settings))
    return read


def _open_folder(output: Path, settings: dict[str, Any]) -> None:
    """Writes the settings to a new folder, or compares them with those in an existing folder.

    Raises:
      DeepLabError: `output` contains files but no settings, invalid settings, or settings that
        differ from `settings`.
    """
    path = output / SETTINGS_FILE
    if not path.is_file():
        check_empty(output)
        write_text(path, json.dumps(settings, indent=2))
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DeepLabError(f"{path}: invalid JSON ({error}); give another --output") from error
    if not isinstance(before, dict):
        raise DeepLabError(f"{path} was not written by this program; give another --output")
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise DeepLabError(
            f"{output} was written with another value of {', '.join(changed)}; give another "
            "--output, or remove the directory to label the images again"
        )


def _write_all_labeled(
    class_names: Sequence[str],
    labeled: Mapping[str, PreparedDataset],
    held_out: Dataset | None,
    output: Path,
    reporter: Reporter,
) -> set[bytes]:
    """Writes the class names, and copies the labeled images of all splits.

    Returns:
      BLAKE2 digests of the decoded images of all splits, and of those in `held_out`.
    """
    write_text(output / CLASSES_FILE, json.dumps(list(class_names)))
    written = (_write_labeled(one, output, split, reporter) for split, one in labeled.items())
    return _digests(held_out, reporter).union(*written)


def _write_labeled(
    dataset: PreparedDataset, output: Path, split: str, reporter: Reporter
) -> set[bytes]:
    """Copies the labeled images of a split, and their masks, to the dataset folder.

    Examples whose mask exists, because an earlier call wrote them, are not written again. If
    several examples have the same name, as in joined splits, a number is appended to the names of
    all but the first.

    Returns:
      BLAKE2 digests of the decoded images, with which copies among the unlabeled images are found.
    """
    digests: set[bytes] = set()
    used: set[str] = set()
    below = Path(split, LABELED) if split == "train" else Path(split)
    bands, palette = dataset.descriptor.bands, dataset.descriptor.palette
    for index in reporter.track(range(len(dataset)), f"copying {split}, image"):
        example: Example = dataset[index]
        name = _unused(example["image_id"], used)
        used.add(name)
        check_member_path(name)
        digests.add(_digest(example["image"]))
        mask = output / "masks" / below / f"{name}.png"
        if not mask.exists():
            encoded = dataset.encoded(index)[0]
            path = _image_path(output / "images" / below / name, encoded, bands)
            _write_image(path, encoded, bands)
            write_class_map(mask, example["label"], palette)
    return digests


def _digests(dataset: Dataset | None, reporter: Reporter) -> set[bytes]:
    """Returns the digests of all images of a dataset; the empty set without a dataset."""
    if dataset is None:
        return set()
    tracked = reporter.track(range(len(dataset)), "reading held-out images, image")
    return {_digest(dataset[index]["image"]) for index in tracked}


def _unused(name: str, used: Set[str]) -> str:
    """Returns the name; if it is in `used`, the first of NAME_2, NAME_3, … that is not."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in used)


def _image_path(place: Path, encoded: bytes, bands: Bands) -> Path:
    """Returns the path of an image in the folder: `place` with the suffix .jpg, .png or .npy."""
    suffix = ".npy" if not bands.are_rgb else ".png" if encoded.startswith(PNG_START) else ".jpg"
    return place.with_name(place.name + suffix)


def _write_image(path: Path, encoded: bytes, bands: Bands) -> None:
    """Writes an encoded image: RGB as JPEG or PNG, other bands as an array [H, W, bands]."""
    content = encoded
    if not bands.are_rgb:
        buffer = io.BytesIO()
        np.save(buffer, decode_bands(encoded, bands))
        content = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _is_labeled(image: _Image, name: str, path: Path, mask: Path) -> bool:
    """Returns whether an earlier call wrote the image to `path` and its pseudo-label to `mask`.

    Raises:
      DeepLabError: the mask exists, but `path` does not contain the pixels of the image.
    """
    if not mask.exists():
        return False
    if path.is_file():
        stored = np.load(path) if path.suffix == ".npy" else decode_image(path.read_bytes())
        if np.array_equal(stored, image.pixels):
            return True
    raise DeepLabError(
        f"{mask} was written earlier, but {path}, which must contain the image of this mask, is "
        f"missing or differs from the given image {name}; give the same images and --page as "
        "before, or another --output"
    )


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
