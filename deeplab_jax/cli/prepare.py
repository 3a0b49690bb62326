"""Turns raw images and masks into a data set that training and evaluation read by name.

usage: deeplab-jax prepare DATASET --source=DIR --data_dir=DIR [--flag=value …]

DATASET is camvid, voc_segmentation, cityscapes, ade20k, coco_stuff, coco_voc, pascal_context,
pascal_person_part, folder (your own images/ and masks/) or shapes (built in, drawn here, needs no
source). Every file is checked before anything is written. The summary lists what to check: classes
without a pixel, files that were left out, equal images in train and val.

examples:
  deeplab-jax prepare camvid --source=~/CamVid --data_dir=data --report
  deeplab-jax prepare folder --source=pets --classes=pets/classes.txt --name=pets --data_dir=data
      the set is then read by the name folder/pets
  deeplab-jax prepare shapes --data_dir=data
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.data.builders.catalog import BUILDERS
from deeplab_jax.data.orientation import DISPLAYED, STORED
from deeplab_jax.data.preparation import prepare, render, summary
from deeplab_jax.errors import DeepLabError, unknown_name

# Which flags each data set understands, beside those that all do.
OPTIONS = {
    "camvid": ("source", "masks_drawn_on"),
    "voc_segmentation": ("source", "masks_drawn_on", "aug_val_masks"),
    "cityscapes": ("source", "masks_drawn_on"),
    "ade20k": ("source", "masks_drawn_on"),
    "coco_stuff": ("source", "masks_drawn_on"),
    "coco_voc": ("source", "masks_drawn_on"),
    "pascal_context": ("source", "masks_drawn_on"),
    "pascal_person_part": ("source", "masks_drawn_on"),
    "folder": (
        "source",
        "masks_drawn_on",
        "masks",
        "classes",
        "color_map",
        "intensity_range",
        "name",
    ),
    "shapes": ("num_train", "num_val", "size", "seed"),
}


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    string = functools.partial(absl_flags.DEFINE_string, default=None, flag_values=flags)
    integer = functools.partial(
        absl_flags.DEFINE_integer, default=None, flag_values=flags, lower_bound=0
    )
    switch = functools.partial(absl_flags.DEFINE_bool, default=False, flag_values=flags)
    string("source", help="Directory of the raw files.")
    string("data_dir", help="Directory that holds the prepared data sets.")
    switch("report", help="Print counts, sizes, class shares and weights, bad files.")
    switch("skip_bad", help="Leave damaged examples out instead of failing.")
    switch("overwrite", help="Write anew what is there already.")
    switch("aug_val_masks", help="voc_segmentation: val from SegmentationClassAug too.")
    absl_flags.DEFINE_enum(
        "masks_drawn_on",
        None,
        [DISPLAYED, STORED],
        "Pixels on which masks of images with an EXIF orientation were drawn, where their sizes do "
        "not decide: as viewers display them, or as they are stored (default: refuse such pairs).",
        flag_values=flags,
    )
    string("masks", help="folder: directory of the masks (default: masks/ in the source).")
    string("classes", help="folder: class names, a text file (one a line) or JSON.")
    string("color_map", help='folder: class colours, lines `r g b name` or JSON {"name": [r,g,b]}.')
    string("name", help="folder: name of this set; it is then read as folder/NAME.")
    absl_flags.DEFINE_list(
        "intensity_range",
        None,
        "folder: LOW,HIGH of 16-bit images that become 0 and 255 (default: 0 and each maximum).",
        flag_values=flags,
    )
    integer("num_train", help="shapes: number of training images (default 1600).")
    integer("num_val", help="shapes: number of validation images (default 200).")
    integer("size", help="shapes: side of the images in pixels (default 96).")
    integer("seed", help="shapes: another seed draws other images (default 0).")


def run(flags: absl_flags.FlagValues, paths: Sequence[str], console: Console) -> None:
    """Prepares one data set."""
    if len(paths) != 1:
        raise DeepLabError(f"prepare takes one data set; legal: {', '.join(BUILDERS)}")
    name = paths[0]
    if name not in BUILDERS:
        raise unknown_name("data set", name, BUILDERS)
    if not flags.data_dir:
        raise DeepLabError("--data_dir=DIR is needed: where the prepared data set goes")
    make_builder = functools.partial(
        BUILDERS[name],
        data_dir=Path(flags.data_dir).expanduser(),
        reporter=console,
        **_options(name, flags),
    )
    preparation = prepare(
        make_builder, skip_bad=flags.skip_bad, overwrite=flags.overwrite, reporter=console
    )
    console.print(render(preparation) if flags.report else summary(preparation))


def _options(name: str, flags: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns the builder's own arguments, refusing flags that it does not understand."""
    specific = {option for options in OPTIONS.values() for option in options}
    given = {option: flags[option].value for option in sorted(specific) if flags[option].present}
    for option in given:
        if option not in OPTIONS[name]:
            legal = ", ".join(f"--{legal}" for legal in OPTIONS[name])
            raise DeepLabError(f"--{option} means nothing to {name}; it takes {legal}")
    if "source" in OPTIONS[name] and "source" not in given:
        raise DeepLabError(f"--source=DIR is needed: where the raw files of {name} are")
    if "intensity_range" in given:
        given["intensity_range"] = _intensity_range(given["intensity_range"])
    if "name" in given:
        given["config"] = _configuration(given.pop("name"))
    return given


def _intensity_range(values: list[str]) -> tuple[float, float]:
    try:
        low, high = map(float, values)
    except ValueError:
        raise DeepLabError("--intensity_range takes two numbers, as in 0,4095") from None
    return low, high


def _configuration(name: str) -> tfds.core.BuilderConfig:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise DeepLabError(f"--name={name}: use letters, digits, - and _")
    return tfds.core.BuilderConfig(name=name)
