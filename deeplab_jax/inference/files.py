"""Predictions of image files, written whole or not at all."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from deeplab_jax.data.images import read_image
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing
from deeplab_jax.inference.file_jobs import FileJob, Job
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import colorize, overlay, write_class_map, write_picture

AnyJob = TypeVar("AnyJob", bound=Job)


def readable_files(
    jobs: Iterable[AnyJob], *, skip_bad: bool = False, reporter: Reporter
) -> list[AnyJob]:
    """Reads every image once, so that nothing is written when one of them is bad.

    Args:
      jobs: of `plan_files`, `plan_classifications` or `plan_submission`.
      skip_bad: leave bad images out, with a warning each and their number.
      reporter: hears of progress and of what is left out.

    Raises:
      DeepLabError: an image is bad and is not to be skipped, or all are.
    """
    jobs, good = list(jobs), []
    for job in reporter.track(jobs, "checking, image"):
        try:
            read_image(job.image)
        except DeepLabError as error:
            if not skip_bad:
                raise DeepLabError(
                    f"{error}; nothing was written (--skip_bad leaves it out)"
                ) from error
            reporter.warning(f"left out: {error}")
        else:
            good.append(job)
    if not good:
        raise DeepLabError(f"none of the {len(jobs)} images can be read")
    if len(good) < len(jobs):
        reporter.warning(f"left out {len(jobs) - len(good)} of {len(jobs)} images")
    return good


def predict_files(predictor: Predictor, jobs: Sequence[FileJob], reporter: Reporter) -> None:
    """Writes the predictions of images, each file whole or not at all.

    Args:
      predictor: of the model.
      jobs: of `plan_files`.
      reporter: hears of progress.

    Raises:
      DeepLabError: an image cannot be read.
    """
    for job in reporter.track(jobs, "predicting, image"):
        image = read_image(job.image, intensity_range=predictor.intensity_range)
        if job.probabilities:
            prediction = predictor.predict(image)
            class_map = prediction.class_map
            _write_probabilities(job.probabilities, prediction.probabilities, predictor.class_names)
        else:
            # Probabilities of a large image may not fit in memory.
            class_map = predictor(image)
        write_class_map(job.class_map, class_map, predictor.palette)
        if job.colors:
            write_picture(job.colors, colorize(class_map, predictor.palette))
        write_picture(job.overlay, overlay(image, class_map, predictor.palette))


def _write_probabilities(path: Path, probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            probabilities=probabilities.astype(np.float16),
            class_names=np.array(class_names),
        )
