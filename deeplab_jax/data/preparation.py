"""Prepares a data set: checks every example first, then writes all or nothing."""

import contextlib
import dataclasses
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from deeplab_jax.data.builders.base import Problem, SegmentationBuilder
from deeplab_jax.data.locations import INFO_FILE
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
      make_builder: makes the builder anew, as a `functools.partial` of its class does.
      skip_bad: leave damaged examples out instead of failing.
      overwrite: write again what is there; the old stays until the new is whole.
      reporter: hears of progress and of each damaged example.

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
