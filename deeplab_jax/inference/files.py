"""Prediction of image files: plans the output files, then predicts and writes them."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.data.image_layout import max_whole_pixels
from deeplab_jax.data.image_rows import open_rows
from deeplab_jax.data.images import image_size, read_image
from deeplab_jax.data.volumes import refuse_ignored_volumes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, is_local, replacing
from deeplab_jax.labels import VOID_LABEL, label_dtype
from deeplab_jax.lazy import import_extra
from deeplab_jax.listing import IMAGE_SUFFIXES, absence, visible_files
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import colorize, displayed, overlay, write_class_map, write_picture

if TYPE_CHECKING:
    from deeplab_jax.inference.predictor import Predictor
    from deeplab_jax.inference.tiles import Place, Tiling


@dataclasses.dataclass(frozen=True)
class Job:
    """Base class for one input of a prediction, such as an image file, and its output files.

    The first field of a subclass is the input. Each other field is the path of an output file, or
    None if this file is not written.
    """

    @property
    def targets(self) -> tuple[Path, ...]:
        """Paths of the files to write."""
        return tuple(filter(None, dataclasses.astuple(self)[1:]))


AnyJob = TypeVar("AnyJob", bound=Job)


@dataclasses.dataclass(frozen=True)
class ImageJob(Job):
    """Base class for one input image and its output files, which are fields of the subclasses.

    Attributes:
      image: input file.
    """

    image: Path


AnyImageJob = TypeVar("AnyImageJob", bound=ImageJob)


@dataclasses.dataclass(frozen=True)
class FileJob(ImageJob):
    """One image and the files of its prediction.

    For images of more than 179 million pixels, which Pillow does not read, TIFF files are written
    instead of PNG files.

    Attributes:
      image: input file.
      class_map: PNG of the class indices, as large as the image. It has a palette; with more than
        255 classes, it is a 16-bit gray image instead.
      overlay: PNG of the image blended with the colors of its classes.
      probabilities: `.npz` with the arrays `probabilities`, float16 [H, W, num_classes], and
        `class_names`; None: not written.
      colors: RGB PNG of the class map in the colors of the classes; None: not written, because
        `class_map` has a palette.
    """

    class_map: Path
    overlay: Path
    probabilities: Path | None
    colors: Path | None = None


@dataclasses.dataclass(frozen=True)
class ClassificationJob(ImageJob):
    """One image and the file of its class probabilities.

    Attributes:
      image: input file.
      classes: JSON file: {"image": file name, "classes": [{"class_name": …, "probability": …}, …]}.
    """

    classes: Path


def plan_files(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    num_classes: int | None = None,
    by_rows: bool = False,
    page: int | None = None,
) -> list[FileJob]:
    """Determines the files to write for each image.

    The function reads at most the headers of the images, and writes nothing.

    Args:
      paths: image files, and folders that are searched recursively.
      output: directory of the predictions; receives the same subfolders as the searched folders.
      probabilities: whether to also write probabilities.
      overwrite: whether to replace files that exist or that an earlier job in the list writes.
      num_classes: number of classes of the model. If it is above 255, `FileJob.colors` is written.
      by_rows: whether images are predicted by rows, see `predict_files`. An image may then have
        more than 179 million pixels, which Pillow does not read; its output files are TIFFs.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.

    Raises:
      DeepLabError: the images are refused by `find_images`, or the output files by `plan`. With
        `by_rows`: an image is too large for Pillow, and either `probabilities` is true or the
        package tifffile is not installed.
    """

    def job(image: Path, target: Path) -> FileJob:
        suffix = ".png"
        if by_rows and math.prod(image_size(image, page)) > max_whole_pixels():
            suffix = ".tif"
            if probabilities:
                raise DeepLabError(
                    f"{image} has more than {max_whole_pixels():,} pixels, so its probabilities "
                    "cannot be written; omit --probabilities"
                )
            import_extra("tifffile", "tiff", f"the result for {image}, a TIFF,")
        class_map, blended, archive, colors = (
            target.with_name(f"{target.stem}{ending}")
            for ending in (suffix, f"_overlay{suffix}", "_probabilities.npz", f"_colors{suffix}")
        )
        drawn = (num_classes or 0) > VOID_LABEL
        return FileJob(
            image, class_map, blended, archive if probabilities else None, colors if drawn else None
        )

    return plan(find_images(paths, output), job, overwrite)


def plan_classifications(
    paths: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[ClassificationJob]:
    """Determines the JSON file to write for each image to classify; reads and writes no file.

    The arguments have the same meaning, and cause the same errors, as in `plan_files`.
    """

    def job(image: Path, target: Path) -> ClassificationJob:
        return ClassificationJob(image, target.with_name(f"{target.stem}_classes.json"))

    return plan(find_images(paths, output), job, overwrite)


def find_images(paths: Sequence[str | Path], output: str | Path) -> list[tuple[Path, Path]]:
    """Returns pairs of an image file and the path of its result in the directory `output`.

    The path of the result has the suffix of the image file. Folders are searched recursively.

    Raises:
      DeepLabError: a path does not exist or is in a bucket, `output` is a file, or no image is
        found. If a folder contains a medical volume but no image, the message names the volume.
    """
    if not (found := find_inputs(paths, output, IMAGE_SUFFIXES)):
        refuse_ignored_volumes(paths, ())
        place = f" in {', '.join(map(str, paths))}" if paths else ""
        raise DeepLabError(
            f"no image to predict was found{place}; give image files, or folders with images "
            f"({', '.join(IMAGE_SUFFIXES)})"
        )
    return found


def find_inputs(
    paths: Sequence[str | Path], output: str | Path, suffixes: Sequence[str]
) -> list[tuple[Path, Path]]:
    """Returns pairs of a file to predict and the path of its result in `output`.

    The path of the result has the suffix of the file. Equal pairs are returned only once.

    Args:
      paths: files, and folders that are searched recursively.
      output: directory of the predictions. If it is inside one of the folders, the files in
        `output` are ignored, because they are predictions of an earlier run.
      suffixes: suffixes of the files to find in folders. Files that are given by name may be hidden
        or have another suffix.

    Raises:
      DeepLabError: a path does not exist or is in a bucket, or `output` is a file.
    """
    remote = next((path for path in paths if not is_local(path)), None)
    if remote is not None:
        raise DeepLabError(
            f"{remote}: images must be on a local path; copy the files, or mount the bucket"
        )
    output, found = as_path(output), []
    if output.exists() and not output.is_dir():
        raise DeepLabError(f"--output={output} is a file; give a directory")
    for path in map(as_path, paths):
        if not path.exists():
            reason = absence(path) if path.is_symlink() else "no such file or folder"
            raise DeepLabError(f"{path}: {reason}")
        if not path.is_dir():
            found.append((path, output / path.name))
            continue
        earlier = output.resolve() if path.resolve() in output.resolve().parents else None
        found += [
            (file, output / file.relative_to(path))
            for file in visible_files(path, suffixes)
            if earlier not in file.resolve().parents
        ]
    return list({(os.path.realpath(pair[0]), pair[1]): pair for pair in found}.values())


def plan(
    found: Iterable[tuple[Any, Path]], job: Callable[[Any, Path], AnyJob], overwrite: bool
) -> list[AnyJob]:
    """Returns a job for each input, after checking that all output files may be written.

    Args:
      found: pairs of an input and the path of its result, as `find_inputs` returns them.
      job: function from an input and the path of its result to a job.
      overwrite: whether to replace files that exist or that an earlier job in the list writes.

    Raises:
      DeepLabError: an output file is an input. Without `overwrite`, an output file exists, or two
        inputs have the same output file.
    """
    pairs = list(found)
    inputs = {os.path.realpath(source) for source, _ in pairs if isinstance(source, Path)}
    jobs: list[AnyJob] = []
    claimed: dict[Path, Path] = {}
    for source, place in pairs:
        jobs.append(job(source, place))
        for target in jobs[-1].targets:
            if os.path.realpath(target) in inputs:
                raise DeepLabError(
                    f"{target} is an input and is never overwritten; give another --output"
                )
            if target in claimed and not overwrite:
                raise DeepLabError(
                    f"the results of {claimed[target]} and {source} would both be written to "
                    f"{target}; rename one, or give --overwrite to keep only the result of {source}"
                )
            if target.exists() and not overwrite:
                raise DeepLabError(f"{target} exists; give another --output, or use --overwrite")
            claimed[target] = source
    return jobs


def readable_files(
    jobs: Iterable[AnyImageJob],
    *,
    skip_bad: bool = False,
    bands: Bands = RGB,
    reporter: Reporter,
    by_rows: bool = False,
    page: int | None = None,
) -> list[AnyImageJob]:
    """Reads each image once, and returns the jobs whose images can be read.

    Args:
      jobs: result of `plan_files`, `plan_classifications` or `plan_submission`.
      skip_bad: whether to skip unreadable images with a warning.
      bands: input bands of the model.
      reporter: receives progress events and warnings.
      by_rows: whether images may be too large for Pillow, see `plan_files`.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.

    Raises:
      DeepLabError: an image cannot be read and `skip_bad` is false, or no image can be read.
    """
    jobs, good = list(jobs), []
    for job in reporter.track(jobs, "checking, image"):
        try:
            if by_rows:
                with open_rows(job.image, page=page, check=True):
                    pass
            else:
                read_image(job.image, bands=bands, page=page)
        except DeepLabError as error:
            if not skip_bad:
                raise DeepLabError(
                    f"{error}; nothing was written (--skip_bad skips images that cannot be read)"
                ) from error
            reporter.warning(f"skipped: {error}")
        else:
            good.append(job)
    if not good:
        raise DeepLabError(f"none of the {len(jobs)} images can be read; see the warnings above")
    if len(good) < len(jobs):
        reporter.warning(f"skipped {len(jobs) - len(good)} of {len(jobs)} images")
    return good


def predict_files(
    predictor: "Predictor",
    jobs: Sequence[FileJob],
    reporter: Reporter,
    overlay_bands: Sequence[int] | None = None,
    *,
    page: int | None = None,
) -> None:
    """Predicts images and writes the results, each file atomically.

    Images are predicted and written by rows if `Predictor.takes_rows` is True, `overlay_bands` is
    None, and no job writes probabilities.

    Args:
      predictor: model to apply.
      jobs: result of `plan_files`.
      reporter: receives progress events.
      overlay_bands: numbers, from 1, of three bands that overlays show as red, green and blue, or
        of one band that they show as gray; None: bands 1 to 3, or band 1 if there are fewer.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.

    Raises:
      DeepLabError: an image cannot be read.
    """
    tiling, probabilities = predictor.tiling, any(job.probabilities for job in jobs)
    if tiling and predictor.takes_rows and not probabilities and overlay_bands is None:
        _predict_by_rows(predictor, tiling, jobs, reporter, page)
        return
    for job in reporter.track(jobs, "predicting, image"):
        image = read_input(predictor, job.image, page=page)
        class_map = _class_map(predictor, image, job.probabilities)
        write_class_map(job.class_map, class_map, predictor.palette)
        if job.colors:
            write_picture(job.colors, colorize(class_map, predictor.palette))
        image = displayed(image, overlay_bands)
        write_picture(job.overlay, overlay(image, class_map, predictor.palette))


def _class_map(predictor: "Predictor", image: np.ndarray, archive: Path | None) -> np.ndarray:
    """Returns the class map, uint8 or uint16, and writes probabilities to `archive` if given."""
    # Probabilities need much memory: they are computed only if necessary, and freed on return.
    if archive is None:
        class_map = predictor(image)
    else:
        prediction, names = predictor.predict(image), np.array(predictor.class_names)
        half, class_map = prediction.probabilities.astype(np.float16), prediction.class_map
        with replacing(archive) as temporary:
            np.savez_compressed(temporary, probabilities=half, class_names=names)
    return class_map.astype(label_dtype(len(predictor.class_names)))


def read_input(
    predictor: "Predictor", source: Path | bytes, name: str = "", page: int | None = None
) -> np.ndarray:
    """Reads an image with the bands and the dtype that a model takes.

    Args:
      predictor: model to apply.
      source: path of the image, or its encoded bytes.
      name: name of the image for error messages, if `source` is encoded bytes.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.
    """
    limits, bands = predictor.intensity_range, predictor.bands
    return read_image(source, intensity_range=limits, name=name, bands=bands, page=page)


def _predict_by_rows(
    predictor: "Predictor",
    tiling: "Tiling",
    jobs: Sequence[FileJob],
    reporter: Reporter,
    page: int | None,
) -> None:
    """Predicts images by rows; an output file has a temporary name until it is complete."""
    # The import is local because it loads JAX; wrong arguments are reported before that.
    from deeplab_jax.inference.large_images import predict_rows

    total = sum(len(tiling.places(image_size(job.image, page))) for job in jobs)
    done = reporter.track(range(total), "predicting, tile")

    def track(places: "Sequence[Place]") -> "Iterator[Place]":
        for place in places:
            next(done, None)
            yield place

    with contextlib.closing(done):
        for job in jobs:
            with contextlib.ExitStack() as stack:
                rows = open_rows(job.image, intensity_range=predictor.intensity_range, page=page)
                image = stack.enter_context(rows)
                class_map, overlay = (
                    stack.enter_context(replacing(path)) for path in (job.class_map, job.overlay)
                )
                colors = stack.enter_context(replacing(job.colors)) if job.colors else None
                predict_rows(predictor, image, class_map, overlay, colors, track)
        next(done, None)
