"""Base class of all dataset builders, which check, encode and write examples."""

import abc
import concurrent.futures
import dataclasses
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from deeplab_jax.data.builders.findings import Facts, Findings, Problem, palette_problems
from deeplab_jax.data.builders.folder_files import SPLITS
from deeplab_jax.data.codecs import decode_bands, encode_png
from deeplab_jax.data.descriptors import Descriptor
from deeplab_jax.data.statistics import BandCounter, StatisticsCounter
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import label_dtype
from deeplab_jax.reporter import Reporter

# If the source defines no splits, about one image in VAL_SHARE becomes part of val.
VAL_SHARE = 5


# Remark on an example, see `Facts.notes`.
ALL_VOID = "every pixel of the mask is void"


@dataclasses.dataclass(frozen=True)
class LoadedExample:
    """An example that is ready to be stored.

    Attributes:
      image: encoded image, with its EXIF orientation applied. RGB images are encoded as JPEG or PNG
        with 8 bits per channel. Images with other bands are encoded as a gray PNG, in which the
        bands are stacked vertically.
      label: class of each pixel or void, [H, W]; uint8 with void = 255 for up to 255 classes, else
        uint16 with void = 65535.
      facts: results of checking the example.
    """

    image: bytes
    label: np.ndarray
    facts: Facts = dataclasses.field(default_factory=Facts)


# TFDS has no types.
class LocalDatasetInfo(tfds.core.DatasetInfo):  # type: ignore[misc]
    """Dataset information that TFDS does not look up in its public bucket."""

    def initialize_from_bucket(self) -> None:
        """Does nothing.

        TFDS calls this method when a builder is created for a dataset that is not yet prepared. The
        method of TFDS would query a bucket on the web, and leave an empty folder.
        """


# TFDS has no types, so mypy does not know its keyword.
class SegmentationBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg,misc]
    """Base class of TFDS builders of images and masks; subclasses find and read the files.

    Images are passed to TFDS as encoded bytes, because TFDS would encode arrays with TensorFlow.
    `info.metadata` has the keys:

    * class_names, palette, intensity_range, bands: fields of `descriptor`. If the bands are not
      RGB, `bands` also contains the mean and the standard deviation of each band over the first
      split.
    * statistics: statistics of the labels, by split.
    * left_out: list with one reason for each example that was excluded.
    * notes: list of remarks for the user.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Without this, TFDS searches checksums of downloads with a package that it does not install.
    code_path = None
    # Classes and palette of the prepared dataset.
    descriptor: Descriptor
    # Directory of the raw files, if there is one.
    source: Path

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Defines a subclass without adding it to TFDS's registry of datasets."""
        super().__init_subclass__(skip_registration=True, **kwargs)

    def __init__(self, *, reporter: Reporter | None = None, **kwargs: Any) -> None:
        """Creates a builder.

        Args:
          reporter: receives progress events.
          **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`, such as data_dir and config.
        """
        self.reporter = reporter or Reporter()
        self._findings = Findings()
        self._left_out: frozenset[tuple[str, str]] = frozenset()
        super().__init__(file_format="array_record", **kwargs)

    @abc.abstractmethod
    def image_ids(self) -> dict[str, Sequence[str]]:
        """Returns the names of the examples by split, in the order in which they are stored."""

    @abc.abstractmethod
    def load(self, split: str, image_id: str) -> LoadedExample:
        """Reads one example.

        Raises:
          DeepLabError: the example is damaged, or its label does not match the classes.
        """

    def problems(self) -> list[Problem]:
        """Checks all examples, and returns a problem for each one that cannot be stored.

        Raises:
          DeepLabError: an index has different colors in the palettes of the masks, and none of them
            is common, see `palette_problems`.
        """
        self._findings, problems = Findings(), []
        facts_of: dict[tuple[str, str], Facts] = {}
        names = [(split, name) for split, names in self.image_ids().items() for name in names]
        # Decoding releases the GIL, so threads use all cores.
        threads = concurrent.futures.ThreadPoolExecutor()
        try:
            found = threads.map(lambda name: self._checked(*name), names)
            tracked = self.reporter.track(found, "checking", total=len(names))
            for (split, image_id), outcome in zip(names, tracked, strict=True):
                if isinstance(outcome, Problem):
                    problems.append(outcome)
                else:
                    facts_of[split, image_id] = outcome
        finally:
            threads.shutdown(cancel_futures=True)
        damaged = {problem[:2]: problem for problem in palette_problems(facts_of)}
        for name, facts in facts_of.items():
            if name not in damaged:
                self._findings.add(*name, facts)
        return [*problems, *damaged.values()]

    def notes(self) -> list[str]:
        """Returns remarks on the data for the user, one line each; call it after `problems`."""
        return self._findings.notes()

    def leave_out(self, problems: Sequence[Problem], notes: Sequence[str] = ()) -> None:
        """Excludes examples from the dataset.

        Args:
          problems: examples to exclude; the reasons are stored in the metadata.
          notes: remarks for the user, which are also stored in the metadata.
        """
        self._left_out = frozenset((problem.split, problem.image_id) for problem in problems)
        reasons = [problem.reason for problem in problems]
        self.info.metadata.update(left_out=reasons, notes=list(notes))

    def kept(self) -> dict[str, list[str]]:
        """Returns the names of the examples by split, without those that were left out."""
        return {
            split: [name for name in names if (split, name) not in self._left_out]
            for split, names in self.image_ids().items()
        }

    def _checked(self, split: str, image_id: str) -> Problem | Facts:
        try:
            image_id.encode()
        except UnicodeEncodeError:
            name = f"{split}/{image_id}"
            reason = f"{name!a}: the name of this image is not in UTF-8; rename its file"
            return Problem(split, image_id, reason)
        try:
            example = self.load(split, image_id)
        except DeepLabError as error:
            return Problem(split, image_id, str(error))
        # The void label is the largest value of the dtype.
        if example.label.min() == np.iinfo(example.label.dtype).max:
            return example.facts._replace(notes=(*example.facts.notes, ALL_VOID))
        return example.facts

    def _info(self) -> tfds.core.DatasetInfo:
        dtype, bands = label_dtype(self.descriptor.num_classes), self.descriptor.bands
        image = tfds.features.Image(shape=(None, None, 3))
        if not bands.are_rgb:
            # `encode_bands` stacks the bands vertically in one gray picture.
            image = tfds.features.Image(shape=(None, None, 1), dtype=np.dtype(bands.dtype))
        features = {
            "image": image,
            "label": tfds.features.Image(shape=(None, None, 1), dtype=dtype),
            "image_id": tfds.features.Text(),
        }
        metadata = {
            "class_names": list(self.descriptor.class_names),
            "palette": [list(color) for color in self.descriptor.palette],
            "intensity_range": self.descriptor.intensity_range,
            "bands": dataclasses.asdict(bands),
            "statistics": {},
            "left_out": [],
            "notes": [],
        }
        return LocalDatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(metadata),
            # Evaluation uses the order of `image_ids`. Training shuffles when it reads.
            disable_shuffling=True,
        )

    def _split_generators(self, _: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        return {split: self._generate_examples(split, ids) for split, ids in self.kept().items()}

    def _generate_examples(self, split: str, image_ids: Sequence[str]) -> Iterator[Any]:
        counter, bands = StatisticsCounter(self.descriptor.num_classes), self.descriptor.bands
        # Statistics of the bands are computed over the first split, train.
        is_first, pixels = split == next(iter(self.image_ids())), BandCounter(bands.count)
        for key, image_id in enumerate(self.reporter.track(image_ids, f"writing {split}")):
            example = self.load(split, image_id)
            counter.add(example.label)
            if is_first and not bands.are_rgb:
                pixels.add(decode_bands(example.image, bands))
            label = io.BytesIO(encode_png(example.label))
            yield key, {"image": io.BytesIO(example.image), "label": label, "image_id": image_id}
        self.info.metadata["statistics"][split] = counter.result().to_json()
        if is_first and not bands.are_rgb:
            mean, std = pixels.result()
            self.info.metadata["bands"].update(mean=mean, std=std)


Example = TypeVar("Example")


def in_splits(
    found: Mapping[str | None, dict[str, Example]], builder: SegmentationBuilder
) -> dict[str, dict[str, Example]]:
    """Returns the examples by split; divides examples without a split into train and val.

    The examples of val are chosen by a hash of their names.

    Args:
      found: examples by split, then by id. The split is None for examples without a split.
      builder: builder of the dataset. If examples are divided, its reporter receives the number
        of images in val.

    Raises:
      DeepLabError: some examples are in a split and others are not.
    """
    undivided = found.get(None)
    if not undivided:
        return {split: found[split] for split in SPLITS if found.get(split)}
    if divided := [split for split in SPLITS if found.get(split)]:
        raise DeepLabError(
            f"{next(iter(undivided))} is in no split, but other files are in the split "
            f"{divided[0]}; put all annotation files into train/, val/ or test/ (or name those of "
            "coco after a split, as in instances_train.json), or none of them"
        )
    chosen = _held_out(list(undivided))
    builder.reporter.message(
        f"no train/ and val/ in {builder.source}: the split val consists of {len(chosen)} of "
        f"{len(undivided)} images, chosen by a hash of their names"
    )
    return {
        split: {name: one for name, one in undivided.items() if (name in chosen) == held}
        for split, held in (("train", False), ("val", True))
    }


def _held_out(names: list[str]) -> set[str]:
    """Returns the names of the examples that become the split val, about a fifth of all.

    If files are added later, the existing examples stay in their splits, except one example that
    was moved because train or val would have been empty.
    """
    digests = {
        # Lone surrogates in a name stand for bytes that are not UTF-8.
        name: hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
        for name in names
    }
    ordered = sorted(names, key=digests.__getitem__)
    chosen = {name for name in names if int.from_bytes(digests[name]) % VAL_SHARE == 0}
    chosen = chosen or {ordered[0]}
    # At least one image stays in train.
    return chosen - {ordered[-1]} if len(chosen) == len(names) else chosen
