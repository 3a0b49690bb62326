"""Small datasets as annotation tools and sensors deliver them, and the commands that read them.

A test of a format writes `drawings()` into a folder in that format and calls `prepare_and_train`.
A test of a spoilt file calls `refused`.
"""

import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from tiny_recipe import write_tiny_recipe

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data import open_dataset
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.data.prepared import PreparedDataset
from deeplab_jax.data.shapes import draw_scene

CLASS_NAMES = SHAPES.class_names
NUM_DRAWINGS, SIZE = 6, 48


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A drawn example.

    Attributes:
      name: name without suffix: `drawing_0`, `drawing_1`, …
      split: `train`, or `val` for every third.
      image: uint8 [size, size, 3] RGB.
      label: uint8 [size, size]: classes of CLASS_NAMES, and 255 around each shape.
    """

    name: str
    split: str
    image: np.ndarray
    label: np.ndarray


@functools.cache
def drawings(count: int = NUM_DRAWINGS, size: int = SIZE, seed: int = 0) -> tuple[Drawing, ...]:
    """Returns drawn examples, equal in every call."""
    scenes = [draw_scene(seed, 0, index, size) for index in range(count)]
    return tuple(
        Drawing(f"drawing_{index}", "val" if index % 3 == 2 else "train", image, label)
        for index, (image, label) in enumerate(scenes)
    )


def write_picture(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """Writes pixels in the format that the suffix names, in a folder that is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        PIL.Image.fromarray(pixels).save(path, **options)
    return path


def write_source(
    source: Path,
    *,
    image: str = "images/{split}/{name}.png",
    mask: str = "masks/{split}/{name}.png",
    write_mask: Callable[[Path, np.ndarray], object] = write_picture,
    chosen: Sequence[Drawing] | None = None,
) -> Path:
    """Writes a source of `prepare folder` and returns its folder.

    Args:
      source: folder to create.
      image, mask: places below it; `{split}` and `{name}` are those of the drawing.
      write_mask: writes a label to a path.
      chosen: drawings to write (default: all of `drawings()`).
    """
    for drawing in drawings() if chosen is None else chosen:
        place = {"split": drawing.split, "name": drawing.name}
        write_picture(source / image.format(**place), drawing.image)
        path = source / mask.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mask(path, drawing.label)
    (source / "classes.txt").write_text("\n".join(CLASS_NAMES))
    return source


def command(*words: object) -> tuple[int, str, str]:
    """Runs `deeplab-jax …` in this process and returns exit status, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(list(map(str, words)), Console())
    return status, out.getvalue(), err.getvalue()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
      name: name for `open_dataset`.
      data_dir: directory of the prepared datasets.
      printed: stdout and stderr of `prepare`.
    """

    name: str
    data_dir: Path
    printed: str

    def split(self, name: str) -> PreparedDataset:
        """Opens a split."""
        return open_dataset(self.name, self.data_dir, name)

    def labels(self) -> dict[str, np.ndarray]:
        """Returns the label of each example of train and val by its name."""
        splits = [self.split(name) for name in ("train", "val")]
        examples = [split[index] for split in splits for index in range(len(split))]
        return {example["image_id"]: example["label"] for example in examples}


def prepare(folder: Path, *words: object, dataset: str = "folder") -> Prepared:
    """Prepares a dataset through the command; fails if the command does.

    Args:
      folder: folder for the prepared dataset.
      words: arguments of the command after the dataset, such as `--source=…`.
      dataset: name of the builder.
    """
    data_dir = folder / "data"
    status, out, err = command("prepare", dataset, f"--data_dir={data_dir}", *words)
    assert status == 0, err
    return Prepared(dataset, data_dir, out + err)


def train(folder: Path, prepared: Prepared, **changes: object) -> Path:
    """Trains two steps of a tiny network through the command and returns the workdir.

    Args:
      folder: folder for config and workdir.
      prepared: dataset with the splits train and val.
      **changes: values by config field, with __ for the dot.
    """
    fields = {
        "data__name": prepared.name,
        "data__data_dir": str(prepared.data_dir),
        "training__num_steps": 2,
        "training__batch_size": 4,
        "schedule__warmup_steps": 0,
        "evaluation__batch_size": 2,
    }
    config = write_tiny_recipe(folder / "tiny.py", **(fields | changes))
    workdir = folder / "run"
    status, out, err = command("train", f"--config={config}", f"--workdir={workdir}")
    assert status == 0, err
    assert "after 2 steps" in out
    return workdir


def prepare_and_train(
    folder: Path, *words: object, dataset: str = "folder", **changes: object
) -> tuple[Prepared, Path]:
    """Prepares a dataset and trains on it; see `prepare` and `train`."""
    prepared = prepare(folder, *words, dataset=dataset)
    return prepared, train(folder, prepared, **changes)


def refused(pattern: str, *words: object, unwritten: Path) -> str:
    """Checks that a command ends with status 2 and one right line, and writes nothing.

    Args:
      pattern: regular expression that the line must contain.
      *words: the command, such as "prepare", "folder", "--source=…".
      unwritten: file or folder that must not exist afterwards.

    Returns:
      The line. Warnings may precede it.
    """
    status, out, err = command(*words)
    lines = [line for line in err.splitlines() if line.startswith("deeplab-jax: ")]
    assert (status, out, len(lines)) == (2, "", 1), err
    assert re.search(pattern, lines[0]), lines[0]
    assert "Traceback" not in err
    assert not unwritten.is_file()
    assert not [path for path in unwritten.rglob("*") if path.is_file()]
    return lines[0]
