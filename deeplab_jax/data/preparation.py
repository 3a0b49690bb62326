"""Prepares data sets, and reports what was found in them."""

import contextlib
import dataclasses
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from deeplab_jax.data.builders.base import Problem, SegmentationBuilder
from deeplab_jax.data.prepared import INFO_FILE
from deeplab_jax.data.statistics import SplitStatistics
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A prepared data set.

    Attributes:
      directory: of its version, where TFDS finds it.
      class_names: in label order.
      statistics: by split.
      left_out: why each damaged example is missing.
      notes: what else a user should know of the data, a line each: files and annotations that are
        not part of it, labels that were turned, equal images in several splits.
    """

    directory: Path
    class_names: tuple[str, ...]
    statistics: dict[str, SplitStatistics]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> "Preparation":
        """Reads what was written when the data set was prepared."""
        metadata = tfds.builder_from_directory(directory).info.metadata
        statistics = {
            split: SplitStatistics.from_json(values)
            for split, values in metadata["statistics"].items()
        }
        names, left_out = tuple(metadata["class_names"]), tuple(metadata["left_out"])
        # Datasets of earlier versions have no notes.
        notes = tuple(metadata.get("notes", ()))
        return cls(directory, names, statistics, left_out, notes)


def prepare(
    make_builder: Callable[[], SegmentationBuilder],
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    reporter: Reporter,
) -> Preparation:
    """Writes a data set unless it is there already.

    Args:
      make_builder: creates a new builder, as a `functools.partial` of its class does.
      skip_bad: leave damaged examples out instead of failing.
      overwrite: write again what is there; the old stays until the new is whole.
      reporter: receives the progress and each damaged example.

    Raises:
      DeepLabError: there are damaged examples; the first and their number are named.
    """
    builder = make_builder()
    directory = Path(builder.data_path)
    if (directory / INFO_FILE).is_file() and not overwrite:
        reporter.message(f"{directory} is there already; --overwrite writes it anew")
        return Preparation.read(directory)
    problems = builder.problems()
    _report_problems(problems, skip_bad, reporter)
    notes = builder.notes()
    with _set_aside(directory):
        # A builder that is made while the old version is there takes over its metadata.
        builder = make_builder() if overwrite else builder
        builder.leave_out(problems, notes)
        _refuse_empty_splits(builder)
        write(builder)
    return Preparation.read(directory)


def write(builder: SegmentationBuilder) -> None:
    """Writes a data set beside its final directory and moves it there when it is whole.

    Raises:
      DeepLabError: it cannot be written, as when the disk is full.
    """
    # TFDS wants a directory for downloads even where nothing is downloaded.
    with _quiet(), tempfile.TemporaryDirectory() as unused:
        try:
            builder.download_and_prepare(download_dir=unused)
        # What ArrayRecord makes of the system's errors.
        except RuntimeError as error:
            raise DeepLabError(
                f"{builder.data_path} could not be written ({error}); make room or give another "
                "directory; nothing was left there"
            ) from error


def _report_problems(problems: list[Problem], skip_bad: bool, reporter: Reporter) -> None:
    for problem in problems:
        reporter.warning(problem.reason)
    if problems and not skip_bad:
        others = f" (and {len(problems) - 1} more, listed above)" if len(problems) > 1 else ""
        raise DeepLabError(
            f"{problems[0].reason}{others}; mend it, or leave such examples out with --skip_bad; "
            "nothing was written"
        )


def _refuse_empty_splits(builder: SegmentationBuilder) -> None:
    for split, kept in builder.kept().items():
        if not kept:
            raise DeepLabError(f"no usable example in split {split!r}; nothing was written")


@contextlib.contextmanager
def _set_aside(directory: Path) -> Iterator[None]:
    """Moves an old version away and back again should writing the new one fail."""
    if not directory.exists():
        yield
        return
    aside = Path(tempfile.mkdtemp(prefix="replaced.", dir=directory.parent))
    os.replace(directory, aside / directory.name)
    try:
        yield
    except BaseException:
        os.replace(aside / directory.name, directory)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS, whose own prints and bars would talk over our reporter."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


# Classes that a line lists before it says "…".
SHOWN_CLASSES = 10


def render(preparation: Preparation) -> str:
    """Returns the report as text for a terminal."""
    names, statistics = preparation.class_names, preparation.statistics
    sections = [f"{preparation.directory}", _counts(statistics), _histogram(names, statistics)]
    doubts = [*class_doubts(names, statistics), *preparation.notes]
    if doubts:
        sections.append("check these:\n" + "\n".join(f"  {line}" for line in doubts))
    if preparation.left_out:
        listed = "\n".join(f"  {reason}" for reason in preparation.left_out)
        sections.append(f"left out ({len(preparation.left_out)}):\n{listed}")
    return "\n\n".join(sections)


def summary(preparation: Preparation) -> str:
    """Returns the number of images, and what a user should check, as text for a terminal."""
    statistics = preparation.statistics
    counts = [f"{values.num_images} {split}" for split, values in statistics.items()]
    lines = [
        f"{preparation.directory}: {', '.join(counts)} images",
        *class_doubts(preparation.class_names, statistics),
        *preparation.notes,
    ]
    if preparation.left_out:
        lines.append(f"{len(preparation.left_out)} examples left out; the first: ")
        lines[-1] += preparation.left_out[0]
    return "\n".join(lines)


def class_doubts(names: Sequence[str], statistics: Mapping[str, SplitStatistics]) -> list[str]:
    """Returns a line for the classes without a pixel, and for each that fills a whole split."""
    lines, absent_in = [], {}
    for split, values in statistics.items():
        pixels = values.class_pixels
        absent_in[split] = [name for name, count in zip(names, pixels, strict=True) if not count]
        if not sum(pixels):
            lines.append(f"every pixel of {split} is void")
        lines += [
            f"class {name!r} fills 100 % of {split}"
            for name, count in zip(names, pixels, strict=True)
            if count and count == sum(pixels)
        ]
    everywhere = [name for name in names if all(name in absent for absent in absent_in.values())]
    if everywhere:
        lines.append(f"no pixel in any split: {_listed(everywhere, len(names))}")
    for split, absent in absent_in.items():
        elsewhere = [name for name in absent if name not in everywhere]
        if elsewhere:
            lines.append(f"no pixel in {split}: {_listed(elsewhere, len(names))}")
    return lines


def _listed(absent: Sequence[str], num_classes: int) -> str:
    more = ", …" if len(absent) > SHOWN_CLASSES else ""
    shown = ", ".join(map(repr, absent[:SHOWN_CLASSES]))
    return f"{len(absent)} of {num_classes} classes: {shown}{more}"


def _counts(statistics: dict[str, SplitStatistics]) -> str:
    lines = [
        f"{'split':<12}{'images':>8}  {'smallest':>11}{'median':>11}{'largest':>11}{'void':>8}"
    ]
    for split, values in statistics.items():
        sizes = "".join(f"{f'{height}x{width}':>11}" for height, width in values.sizes)
        void = values.void_pixels / max(1, values.void_pixels + sum(values.class_pixels))
        lines.append(f"{split:<12}{values.num_images:>8}  {sizes}{void:>8.1%}")
    return "\n".join(lines)


def _histogram(names: tuple[str, ...], statistics: dict[str, SplitStatistics]) -> str:
    """Returns the share of each class by split, and weights from the first split, train."""
    width = max(len("class"), *map(len, names)) + 2
    header = "".join(f"{split:>11}" for split in statistics)
    first, *_ = statistics.values()
    lines = [f"{'':>5} {'class':<{width}}{header}{'weight':>9}"]
    for index, (name, weight) in enumerate(zip(names, first.class_weights(), strict=True)):
        shares = "".join(f"{_share(values, index):>11.2%}" for values in statistics.values())
        shown = "absent" if weight is None else f"{weight:.3f}"
        lines.append(f"{index:>5} {name:<{width}}{shares}{shown:>9}")
    return "\n".join([*lines, "weight: median frequency / frequency, from the first split"])


def _share(statistics: SplitStatistics, index: int) -> float:
    return statistics.class_pixels[index] / max(1, sum(statistics.class_pixels))
