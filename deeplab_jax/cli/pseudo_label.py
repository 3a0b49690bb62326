"""usage: deeplab-jax pseudo-label --model=M --dataset=NAME --data_dir=DIR --output=DIR PATH…

Labels images with a model, to train a better model if few labels are available. The command writes
a new folder, --output, that `prepare folder` accepts. This folder contains the labeled images of
the dataset with their masks, and the images at PATH with pseudo-labels: masks of the classes that M
predicts. By default, predictions are fused over several scales and flips. Pixels whose largest
class probability is below --min_confidence become void, so that training ignores them.

A PATH is an image or a folder, which is searched recursively. PATH may contain all your images,
labeled or not: an image is left out if its pixels are equal to those of an image in the labeled
splits or in the split test of the dataset. M must have the same classes as the dataset. To resume
an interrupted run, repeat the command.

examples:
  deeplab-jax pseudo-label --model=runs/first --dataset=folder --data_dir=data --output=one \\
      mine/images
  deeplab-jax prepare folder --source=one --name=one --data_dir=data
  deeplab-jax train --config=folder:cpu --config.data.name=folder/one --workdir=runs/second
"""

import contextlib
import re
import shlex
from pathlib import Path

from deeplab_jax import data, inference
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.data.volumes import refuse_ignored_volumes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, is_local


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define_inference(scales="0.75,1,1.25", flip=True)
    flags.define("dataset", None, "Name of the prepared dataset with the labeled images.")
    flags.define("data_dir", None, "Directory of the prepared datasets.")
    flags.define("train_split", "train", "Split of the labeled images to train on.")
    flags.define("validation_split", "val", "Split of the labeled images to validate on.")
    flags.define("output", None, "Folder to which the images and masks are written.")
    flags.define(
        "min_confidence",
        0.9,
        "Minimum confidence, in [0, 1). A pixel becomes void if its largest class probability is "
        "below this minimum.",
    )
    flags.define(
        "page",
        int,
        "Number of the page to read from TIFF files with several pages (default: such "
        "files are an error).",
        least=1,
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Writes a folder of images and masks, and prints the command that prepares this folder."""
    flags.require("model", "dataset", "data_dir", "output")
    options, output = flags.inference_options(), as_path(flags.output)
    for video in filter(inference.is_video, paths):
        raise DeepLabError(
            f"{video}: pseudo-label reads images only; save frames of the video as images, for "
            f"example with `ffmpeg -i {shlex.quote(str(video))} frames/%06d.png`"
        )
    flags.check_sources()
    found = inference.find_images(paths, output)
    refuse_ignored_volumes(paths, [image for image, _ in found])
    labeled = {
        split: data.open_dataset(flags.dataset, flags.data_dir, expression)
        for split, expression in (("train", flags.train_split), ("val", flags.validation_split))
    }
    predictor = flags.load_predictor(console)
    if not isinstance(predictor, inference.Predictor):
        raise DeepLabError(f"{flags.model} classifies whole images; give a segmentation model")
    summary = inference.write_pseudo_labels(
        predictor.with_options(options),
        labeled,
        inference.named_images(found, output),
        output,
        min_confidence=flags.min_confidence,
        page=flags.page,
        held_out=_test_split(flags),
        reporter=console,
    )
    left_out = (
        f", {summary.num_left_out} left out (equal to labeled images)"
        if summary.num_left_out
        else ""
    )
    console.print(
        f"{summary.num_pseudo} images with pseudo-labels{left_out}; {100 * summary.kept:.1f} % of "
        "the pixels of the pseudo-labels have a class, and the others are void; "
        f"{summary.num_labeled} labeled images"
    )
    console.message(f"prepare them with: {prepare_command(predictor, output, flags.data_dir)}")


def _test_split(flags: Flags) -> "data.Dataset | None":
    """Returns the split test of the dataset; None if there is none, or if a flag selects it."""
    if "test" in f"{flags.train_split}+{flags.validation_split}":
        return None
    with contextlib.suppress(DeepLabError):
        return data.open_dataset(flags.dataset, flags.data_dir, "test")
    return None


def prepare_command(predictor: "inference.Predictor", output: Path, data_dir: str) -> str:
    """Returns the shell command that prepares the folder of images and masks.

    Args:
      predictor: model that labeled the images. If it has an intensity range, the prepared dataset
        stores this range for the models that are trained on the dataset.
      output: folder of images and masks.
      data_dir: directory of the prepared datasets. Datasets are prepared on a local path only, so
        the command contains DIR in place of a path in a bucket.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", output.name)
    name = name if name.strip("_-") else "pseudo"
    place = data_dir if is_local(data_dir) else "DIR"
    words = [f"--source={output}", f"--name={name}", f"--data_dir={place}"]
    if not predictor.bands.are_rgb:
        words.append("--bands=all")
    if predictor.intensity_range:
        low, high = predictor.intensity_range
        words.append(f"--intensity_range={low},{high}")
    return shlex.join(["deeplab-jax", "prepare", "folder", *words])
