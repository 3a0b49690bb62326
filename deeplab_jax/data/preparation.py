"""Writes prepared datasets, and reports their statistics and problems."""

import contextlib
import dataclasses
import io
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from deeplab_jax.data.builders.base import SegmentationBuilder
from deeplab_jax.data.builders.findings import SHOWN_EXAMPLES, Problem
from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.data.prepared import INFO_FILE, stored_bands
from deeplab_jax.data.statistics import SplitStatistics
from deeplab_jax.errors import DeepLabError, shortened
from deeplab_jax.reporter import Reporter


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A prepared dataset.

    Attributes:
      directory: TFDS directory of this version of the dataset.
      class_names: class names in label order.
      statistics: statistics of each split, by the name of the split.
      left_out: one reason for each damaged example that was left out.
      notes: remarks for the user, one line each: files and annotations that are not part of the
        dataset, labels that were rotated, and images that occur in several splits.
      bands: bands of the images, with the mean and the standard deviation of each band if the
        images are not RGB.
    """

    directory: Path
    class_names: tuple[str, ...]
    statistics: dict[str, SplitStatistics]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()
    bands: Bands = RGB

    @classmethod
    def read(cls, directory: Path) -> "Preparation":
        """Reads the statistics and remarks that were stored when the dataset was prepared."""
        info = tfds.builder_from_directory(directory).info
        metadata = info.metadata
        statistics = {
            split: SplitStatistics.from_json(values)
            for split, values in metadata["statistics"].items()
        }
        names, left_out = tuple(metadata["class_names"]), tuple(metadata["left_out"])
        # Datasets that earlier releases wrote have no notes.
        notes = tuple(metadata.get("notes", ()))
        return cls(directory, names, statistics, left_out, notes, stored_bands(info))


def prepare(
    make_builder: Callable[..., SegmentationBuilder],
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    reporter: Reporter,
) -> Preparation:
    """Writes a dataset unless it already exists; returns its directory, statistics and remarks.

    Args:
      make_builder: function that creates a new builder, for example a `functools.partial` of the
        builder class. The function is called without arguments. If an existing dataset is replaced,
        the function is called a second time, with the path of a temporary directory as the argument
        `data_dir`.
      skip_bad: whether to leave damaged examples out instead of failing (default: False).
      overwrite: whether to replace an existing dataset once the new one is complete (default:
        False).
      reporter: receives progress events, and warnings about damaged examples.

    Raises:
      DeepLabError: there are damaged examples and `skip_bad` is False (the message states the
        first one and the number of further ones), a split has no usable example, or the dataset
        cannot be written.
    """
    builder = make_builder()
    directory = Path(builder.data_path)
    if (directory / INFO_FILE).is_file() and not overwrite:
        reporter.message(f"{directory} already exists; to replace it, give --overwrite")
        existing = Preparation.read(directory)
        if differences := _differences(existing, builder):
            reporter.warning(
                f"{directory} is kept, but it has {', '.join(differences)}; to prepare the given "
                "data, give --overwrite, another --name or another --data_dir"
            )
        return existing
    problems = builder.problems()
    # A single problem is stated by the error alone, without a warning.
    for problem in problems if skip_bad or len(problems) > 1 else ():
        reporter.warning(problem.reason)
    if problems and not skip_bad:
        others = ""
        if len(problems) > 1:
            others = f" (and {len(problems) - 1} more, listed above: {_counted(problems)})"
        raise DeepLabError(
            f"{problems[0].reason}{others}. Repair the files, or leave damaged examples out with "
            "--skip_bad; nothing was written"
        )
    notes = builder.notes()
    if not directory.exists():
        _write_kept(builder, problems, notes, directory)
        return Preparation.read(directory)
    # If a process is killed while it writes the new version, the old version is unchanged.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory.parent) as temporary:
        # The first builder has read the metadata of the old version.
        builder = make_builder(data_dir=temporary)
        _write_kept(builder, problems, notes, directory)
        _replace(directory, Path(builder.data_path), Path(temporary) / "replaced")
    return Preparation.read(directory)


def _differences(existing: Preparation, builder: SegmentationBuilder) -> list[str]:
    """Returns in which respects an existing dataset differs from the data of a builder.

    Only classes, bands, intensity range and numbers of images are compared.
    """
    descriptor, bands = builder.descriptor, existing.bands
    wanted, limits = descriptor.bands, builder.info.metadata.get("intensity_range")
    found = {split: len(names) for split, names in builder.image_ids().items()}
    numbers = {split: values.num_images for split, values in existing.statistics.items()}
    total, number = sum(numbers.values()) + len(existing.left_out), sum(found.values())
    comparisons = {
        "other classes": existing.class_names == descriptor.class_names,
        "other bands": (bands.count, bands.dtype, bands.chosen)
        == (wanted.count, wanted.dtype, wanted.chosen),
        "another intensity range": tuple(limits or ()) == tuple(descriptor.intensity_range or ()),
        "other splits": numbers.keys() == found.keys(),
        f"{total} images instead of {number}": total == number,
    }
    return [difference for difference, is_equal in comparisons.items() if not is_equal]


def _counted(problems: Sequence[Problem]) -> str:
    """Returns text with the number of problems for each reason, and the names of a few examples.

    Reasons that differ only in numbers are counted together, and the text then contains "…" instead
    of the numbers.
    """
    examples: dict[str, list[str]] = defaultdict(list)
    shown: dict[str, str] = {}
    for problem in problems:
        # A problem has the form "FILE: REASON; DETAILS" or "FILE: REASON (DETAILS)".
        reason = problem.reason.partition(": ")[2] or problem.reason
        reason = re.split(r"; | \(", reason)[0]
        kind = re.sub(r"\d+", "…", reason)
        if shown.setdefault(kind, reason) != reason:
            shown[kind] = kind
        examples[kind].append(problem.image_id)
    frequent = sorted(examples, key=lambda kind: -len(examples[kind]))
    return "; ".join(
        f"{len(examples[kind])} x {shown[kind]}: {shortened(examples[kind], SHOWN_EXAMPLES)}"
        for kind in frequent
    )


def _write_kept(
    builder: SegmentationBuilder, problems: Sequence[Problem], notes: Sequence[str], final: Path
) -> None:
    """Writes a dataset without the examples that have problems.

    Args:
      builder: builder of the dataset.
      problems: damaged examples, which are left out.
      notes: remarks for the user, which are stored with the dataset.
      final: path of the finished dataset, for error messages. It differs from `builder.data_path`
        if the caller then moves the dataset from there to this path.

    Raises:
      DeepLabError: a split has no usable example, or the dataset cannot be written.
    """
    builder.leave_out(problems, notes)
    for split, kept in builder.kept().items():
        if not kept:
            reasons = _counted([problem for problem in problems if problem.split == split])
            remedy = "; repair these files, or move all files of this split out of the source"
            reason = reasons + remedy if reasons else "the split is empty"
            raise DeepLabError(
                f"no usable example in split {split!r}: {reason}; nothing was written"
            )
    write(builder, final)


def write(builder: SegmentationBuilder, final: Path | None = None) -> None:
    """Writes a dataset to `builder.data_path`; this path exists only once all files are written.

    Args:
      builder: builder of the dataset.
      final: path of the dataset in error messages (default: `builder.data_path`).

    Raises:
      DeepLabError: the dataset cannot be written, for example because the disk is full.
    """
    # TFDS requires a download directory although nothing is downloaded.
    with _quiet(), tempfile.TemporaryDirectory() as unused:
        try:
            builder.download_and_prepare(download_dir=unused)
        # ArrayRecord reports errors of the operating system as RuntimeError.
        except RuntimeError as error:
            raise DeepLabError(
                f"{final or builder.data_path} cannot be written ({error}), and incomplete files "
                "were removed; free disk space, or give another --data_dir"
            ) from error


def _replace(directory: Path, new: Path, aside: Path) -> None:
    """Moves `directory` to `aside`, and then `new` to `directory`.

    If the second step fails, the first is undone.
    """
    os.replace(directory, aside)
    try:
        os.replace(new, directory)
    except BaseException:
        os.replace(aside, directory)
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses TFDS's messages and progress bars, which would interfere with the reporter."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


# Maximum number of classes that a warning lists.
SHOWN_CLASSES = 10


def render(preparation: Preparation) -> str:
    """Returns the full report of `prepare --report` as text for a terminal."""
    names, statistics = preparation.class_names, preparation.statistics
    sections = [f"{preparation.directory}", _counts(statistics), _histogram(names, statistics)]
    if not preparation.bands.are_rgb:
        sections.append(_band_table(preparation.bands))
    doubts = _doubts(preparation)
    if doubts:
        sections.append("check these:\n" + "\n".join(f"  {line}" for line in doubts))
    if preparation.left_out:
        listed = "\n".join(f"  {reason}" for reason in preparation.left_out)
        sections.append(f"left out ({len(preparation.left_out)}):\n{listed}")
    return "\n\n".join(sections)


def summary(preparation: Preparation) -> str:
    """Returns the number of images per split, and all remarks, as text for a terminal."""
    statistics = preparation.statistics
    counts = [f"{values.num_images} {split}" for split, values in statistics.items()]
    bands = "" if preparation.bands.are_rgb else f", {preparation.bands}"
    lines = [
        f"{preparation.directory}: {', '.join(counts)} images{bands}",
        *_doubts(preparation),
    ]
    if left_out := preparation.left_out:
        lines.append(f"{len(left_out)} damaged examples left out; the first: {left_out[0]}")
    return "\n".join(lines)


def _doubts(preparation: Preparation) -> list[str]:
    """Returns warnings about classes and constant bands, followed by `preparation.notes`."""
    bands = preparation.bands
    empty = [
        f"band {number} has the same value, {mean:g}, in all pixels of the first split"
        for number, (mean, std) in enumerate(zip(bands.mean, bands.std, strict=True), start=1)
        if std == 1 and mean == round(mean)
    ]
    doubts = class_doubts(preparation.class_names, preparation.statistics)
    return [*doubts, *empty, *preparation.notes]


def _band_table(bands: Bands) -> str:
    """Returns a table of the mean and the standard deviation of each band."""
    lines = [f"{'band':>5}{'mean':>12}{'std':>12}"]
    for number, values in enumerate(zip(bands.mean, bands.std, strict=True), start=1):
        lines.append(f"{number:>5}" + "".join(f"{value:>12.6g}" for value in values))
    return "\n".join(
        [*lines, f"{bands}; mean and std over all pixels of the first split, including void pixels"]
    )


def class_doubts(names: Sequence[str], statistics: Mapping[str, SplitStatistics]) -> list[str]:
    """Returns warnings about classes without a pixel, and about splits with at most one class."""
    lines, absent_in = [], {}
    for split, values in statistics.items():
        pixels = values.class_pixels
        absent_in[split] = [name for name, count in zip(names, pixels, strict=True) if not count]
        if not sum(pixels):
            lines.append(f"every pixel of split {split} is void")
        lines += [
            f"class {name!r} fills 100 % of the non-void pixels of split {split}"
            for name, count in zip(names, pixels, strict=True)
            if count and count == sum(pixels)
        ]
    # With thousands of classes, a search in lists would take minutes.
    in_no_split = set(names).intersection(*absent_in.values())
    everywhere = [name for name in names if name in in_no_split]
    only_in = {
        split: [name for name in absent if name not in in_no_split]
        for split, absent in absent_in.items()
    }
    return lines + [
        f"classes without a pixel in {place} ({len(absent)} of {len(names)}): "
        + shortened(list(map(repr, absent)), SHOWN_CLASSES)
        for place, absent in {"any split": everywhere, **only_in}.items()
        if absent
    ]


def _counts(statistics: dict[str, SplitStatistics]) -> str:
    columns = "".join(f"{size:>11}" for size in ("smallest", "median", "largest"))
    lines = [f"{'split':<12}{'images':>8}  {columns}{'void':>8}"]
    for split, values in statistics.items():
        sizes = "".join(f"{f'{height}x{width}':>11}" for height, width in values.sizes)
        void = values.void_pixels / max(1, values.void_pixels + sum(values.class_pixels))
        lines.append(f"{split:<12}{values.num_images:>8}  {sizes}{void:>8.1%}")
    return "\n".join(lines)


def _histogram(names: tuple[str, ...], statistics: dict[str, SplitStatistics]) -> str:
    """Returns a table of the fraction of pixels per class in each split, and of the class weights.

    Void pixels are not counted. The weights are computed from the first split in `statistics`.
    """
    width = max(len("class"), *map(len, names)) + 2
    header = "".join(f"{split:>11}" for split in statistics)
    first, *_ = statistics.values()
    lines = [f"{'':>5} {'class':<{width}}{header}{'weight':>9}"]
    for index, (name, weight) in enumerate(zip(names, first.class_weights(), strict=True)):
        fractions = "".join(
            f"{values.class_pixels[index] / max(1, sum(values.class_pixels)):>11.2%}"
            for values in statistics.values()
        )
        shown = "absent" if weight is None else f"{weight:.3f}"
        lines.append(f"{index:>5} {name:<{width}}{fractions}{shown:>9}")
    return "\n".join([*lines, "weight: median class frequency / class frequency, first split"])
