"""Writes predictions in the formats of the VOC and Cityscapes evaluation servers."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeplab_jax.data.descriptors import CITYSCAPES, CITYSCAPES_LABEL_IDS, VOC, Descriptor
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.inference.files import ImageJob, find_images, plan, read_input
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import write_class_map, write_picture

if TYPE_CHECKING:
    from deeplab_jax.inference.predictor import Predictor

# VOC's competition comp6 allows any training data. comp5 requires training on VOC alone; to submit
# to it, rename the folder.
VOC_FOLDER = Path("results", "VOC2012", "Segmentation", "comp6_test_cls")
CITYSCAPES_FRAME = re.compile(r"([a-z-]+_\d{6}_\d{6})(_leftImg8bit)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class SubmissionJob(ImageJob):
    """One image, and the file to which its class map is written."""

    class_map: Path


class _Server(NamedTuple):
    descriptor: Descriptor
    # Maps an image to the path of its class map, relative to the output directory.
    place: Callable[[Path], Path]
    write: Callable[[Path, np.ndarray], None]


def _cityscapes_place(image: Path) -> Path:
    found = CITYSCAPES_FRAME.fullmatch(image.stem)
    if not found:
        raise DeepLabError(
            f"{image}: this is not the name of a Cityscapes frame; the server requires names such "
            "as berlin_000000_000019_leftImg8bit.png"
        )
    return Path(f"{found[1]}_labelIds.png")


def _cityscapes_write(path: Path, class_map: np.ndarray) -> None:
    write_picture(path, np.asarray(CITYSCAPES_LABEL_IDS, np.uint8)[class_map])


SERVERS = MappingProxyType(
    {
        "voc": _Server(
            VOC,
            lambda image: VOC_FOLDER / f"{image.stem}.png",
            functools.partial(write_class_map, palette=VOC.palette),
        ),
        "cityscapes": _Server(CITYSCAPES, _cityscapes_place, _cityscapes_write),
    }
)


def plan_submission(
    paths: Sequence[str | Path], output: str | Path, server: str, *, overwrite: bool = False
) -> list[SubmissionJob]:
    """Determines the file to write for each image; reads and writes no file.

    Args:
      paths: image files, and folders that are searched recursively.
      output: directory of the submission; for VOC, the directory that contains `results/`.
      server: `voc` or `cityscapes`.
      overwrite: whether to replace existing files. If two images have the same output file, the
        result of the second image then replaces that of the first.

    Raises:
      DeepLabError: a path does not exist, there is no image, an output file is also an input file,
        or the server requires another name for an image. Without `overwrite`, also if an output
        file exists or two images have the same output file.
    """

    def job(image: Path, _: Path) -> SubmissionJob:
        return SubmissionJob(image, as_path(output) / SERVERS[server].place(image))

    return plan(find_images(paths, output), job, overwrite)


def check_submission(predictor: "Predictor", server: str) -> None:
    """Checks that the classes of a model are those that a server expects.

    Raises:
      DeepLabError: the names, the order or the number of the classes differ. The message states
        the first pair of different names, if there is one.
    """
    wanted = SERVERS[server].descriptor
    if predictor.class_names == wanted.class_names:
        return
    pairs = zip(predictor.class_names, wanted.class_names, strict=False)
    other = next(
        (f", with {mine!r} instead of {theirs!r}" for mine, theirs in pairs if mine != theirs), ""
    )
    raise DeepLabError(
        f"the {server} server requires the {wanted.num_classes} classes of {wanted.name}, in the "
        f"order of {wanted.name}, but {predictor.source} has {len(predictor.class_names)} "
        f"classes{other}; use a model that was trained on {wanted.name}"
    )


def write_submission(
    predictor: "Predictor",
    jobs: Sequence[SubmissionJob],
    server: str,
    reporter: Reporter,
    *,
    page: int | None = None,
) -> None:
    """Predicts images and writes their class maps in the format of a server.

    For VOC, a file is a palette PNG of class indices. For Cityscapes, it is a gray PNG of labelIds.
    Each file is written atomically.

    Args:
      predictor: model whose classes passed `check_submission`.
      jobs: result of `plan_submission`.
      server: `voc` or `cityscapes`.
      reporter: receives progress events.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.

    Raises:
      DeepLabError: an image cannot be read.
    """
    for job in reporter.track(jobs, "predicting, image"):
        image = read_input(predictor, job.image, page=page)
        SERVERS[server].write(job.class_map, predictor(image))
