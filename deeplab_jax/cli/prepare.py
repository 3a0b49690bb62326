"""usage: deeplab-jax prepare DATASET --source=DIR --data_dir=DIR [--flag=value …]

Converts raw images and masks into a dataset for training and evaluation.

DATASET is one of:
  camvid, voc_segmentation, cityscapes, ade20k, coco_stuff, coco_voc, pascal_context,
  pascal_person_part                       published datasets, whose files you have downloaded
  folder                                   your own images/ and masks/
  labelme, coco, cvat, label_studio, yolo  your own images and annotation files
  shapes                                   built-in synthetic images, without a source
  diagnostic_distance, diagnostic_scales, diagnostic_global, diagnostic_thin, diagnostic_rare,
  diagnostic_outlines                      synthetic images; each dataset tests one claim of the
                                           DeepLab papers

Every file is checked before anything is written. The summary lists possible problems: classes
without a pixel, files that are left out, identical images in train and val.

examples:
  deeplab-jax prepare camvid --source=~/CamVid --data_dir=data --report
  deeplab-jax prepare folder --source=pets --classes=pets/classes.txt --name=pets --data_dir=data
      the name of this dataset is folder/pets
  deeplab-jax prepare cvat --source=export.zip --data_dir=data
  deeplab-jax prepare shapes --data_dir=data
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.data.orientation import DISPLAYED, STORED
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.files import as_path, is_local

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Start of the description of a flag that applies to all datasets of the user's own images.
OWN = "Only for your own images (folder, labelme, coco, cvat, label_studio, yolo):"
# Flags whose values are paths of raw files.
PATHS = ("source", "masks", "classes", "color_map", "images", "annotations")
# Flags of each dataset in addition to the common ones.
RAW = ("source", "masks_drawn_on")
ANNOTATED = (*RAW, "classes", "intensity_range", "name")
DRAWN = ("num_train", "num_val", "size", "seed")
OPTIONS = {
    "camvid": RAW,
    "voc_segmentation": (*RAW, "aug_val_masks"),
    **dict.fromkeys(("cityscapes", "ade20k", "coco_stuff", "coco_voc"), RAW),
    **dict.fromkeys(("pascal_context", "pascal_person_part"), RAW),
    "folder": (*RAW, "masks", "classes", "color_map", "intensity_range", "bands", "page", "name"),
    **dict.fromkeys(("labelme", "cvat"), (*ANNOTATED, "images")),
    **dict.fromkeys(("coco", "label_studio"), (*ANNOTATED, "images", "annotations")),
    "yolo": ANNOTATED,
    "shapes": DRAWN,
    "diagnostic_distance": (*DRAWN, "distance"),
    **dict.fromkeys(("diagnostic_scales", "diagnostic_global"), DRAWN),
    **dict.fromkeys(("diagnostic_thin", "diagnostic_rare", "diagnostic_outlines"), DRAWN),
}


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define(
        "source",
        None,
        "Directory of the raw images and masks. For labelme, coco, cvat, label_studio and yolo, "
        "--source can also be a zip archive.",
    )
    flags.define("data_dir", None, "Directory of the prepared datasets.")
    flags.define(
        "report",
        False,
        "Print image counts and sizes, class fractions and weights, and damaged files.",
    )
    flags.define("skip_bad", False, "Leave out damaged examples, instead of failing.")
    flags.define("overwrite", False, "Replace an existing dataset.")
    flags.define(
        "aug_val_masks",
        False,
        "Only for `prepare voc_segmentation`: read the masks of the split val from the directory "
        "SegmentationClassAug instead of SegmentationClass.",
    )
    flags.define(
        "masks_drawn_on",
        None,
        "Only for images with an EXIF orientation: whether masks were drawn on the image as "
        "viewers display it (displayed) or as the file stores it (stored). The flag is used only "
        "for masks whose size fits both the displayed and the stored image (default: displayed for "
        "labelme; for other datasets, such a mask is an error without this flag).",
        choices=[DISPLAYED, STORED],
    )
    _define_folder_flags(flags)
    _define_synthetic_flags(flags)


def _define_synthetic_flags(flags: Flags) -> None:
    """Defines the flags for `shapes` and the diagnostic datasets."""
    flags.define(
        "num_train",
        int,
        "Only for `prepare shapes` and the diagnostic datasets: number of training images "
        "(default: 1600).",
        least=0,
    )
    flags.define(
        "num_val",
        int,
        "Only for `prepare shapes` and the diagnostic datasets: number of validation images "
        "(default: 200).",
        least=0,
    )
    flags.define(
        "size",
        int,
        "Only for `prepare shapes` and the diagnostic datasets: height and width of the images, in "
        "pixels (default: 96).",
        least=1,
    )
    flags.define(
        "seed",
        int,
        "Only for `prepare shapes` and the diagnostic datasets: random seed (default: 0).",
        least=0,
    )
    flags.define(
        "distance",
        int,
        "Only for `prepare diagnostic_distance`: distance, in pixels, between an object and the "
        "cue that determines the class of the object (default: 24).",
        least=1,
    )


def _define_folder_flags(flags: Flags) -> None:
    """Defines the flags for a user's own images with masks or annotation files."""
    flags.define(
        "masks",
        None,
        "Only for `prepare folder`: directory of the masks (default: found in --source).",
    )
    flags.define(
        "classes",
        None,
        f"{OWN} file of class names in label order, one name per line or a JSON list (default: "
        "classes.txt or classes.json in --source, else the names in the file of --color_map or in "
        "the annotation files).",
    )
    flags.define(
        "images",
        None,
        "Only for the datasets labelme, coco, cvat and label_studio: directory of the images "
        "(default: --source).",
    )
    flags.define(
        "annotations",
        None,
        "Only for the datasets coco and label_studio: path of the annotation file (default: the "
        "JSON files in --source and its subdirectories).",
    )
    flags.define(
        "color_map",
        None,
        "Only for `prepare folder`: file of the colors of the classes in the masks, with lines "
        '`r g b name` or JSON {"name": [r,g,b]}; r, g and b are from 0 to 255.',
    )
    flags.define(
        "name",
        None,
        f"{OWN} name of the prepared dataset; other commands refer to the dataset as DATASET/NAME.",
    )
    flags.define(
        "intensity_range",
        list,
        f"{OWN} the two pixel values LOW,HIGH that are mapped to 0 and 255 when a 16-bit or float "
        "image is converted to 8 bits (default: LOW is 0 or, if negative values occur, the minimum "
        "of the image; HIGH is the maximum of the image).",
    )
    flags.define(
        "bands",
        list,
        "Only for `prepare folder`: image bands to read, as positions from 1, separated by commas. "
        "--bands=all reads all bands. If three positions are given, as in 4,3,2, these bands are "
        "converted to 8-bit red, green and blue. With another number of positions or --bands=all, "
        "the uint8 or uint16 values of the images are kept (default: only gray and RGB images are "
        "accepted).",
    )
    flags.define(
        "page",
        int,
        "Only for `prepare folder`: number of the page to read from TIFF files with several pages "
        "(default: such files are an error).",
        least=1,
    )


def run(flags: Flags, paths: Sequence[str], console: Console) -> None:
    """Prepares a dataset and prints its summary or report."""
    if len(paths) != 1:
        raise DeepLabError(f"give one dataset to prepare; legal: {', '.join(OPTIONS)}")
    name = paths[0]
    check_name("dataset", name, OPTIONS)
    if not flags.data_dir:
        raise DeepLabError("give --data_dir=DIR, the directory for prepared datasets")
    if not is_local(flags.data_dir):
        raise DeepLabError(
            f"--data_dir={flags.data_dir}: datasets are prepared on a local path only; give a "
            "local path, and copy the directory of the dataset to the bucket afterwards"
        )
    options = _options(name, flags)
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.data.builders.registry import BUILDERS
    from deeplab_jax.data.preparation import prepare, render, summary

    make_builder = functools.partial(
        BUILDERS[name],
        data_dir=as_path(flags.data_dir),
        reporter=console,
        **options,
    )
    preparation = prepare(
        make_builder, skip_bad=flags.skip_bad, overwrite=flags.overwrite, reporter=console
    )
    console.print(render(preparation) if flags.report else summary(preparation))


def _options(name: str, flags: Flags) -> dict[str, Any]:
    """Returns the keyword arguments of the builder of the dataset `name`, read from the flags.

    Raises:
      DeepLabError: a flag does not apply to the dataset or has an illegal value, --source is
        missing, or a path is in a bucket.
    """
    specific = {option for options in OPTIONS.values() for option in options}
    given: dict[str, Any] = {
        option: flags[option].value for option in sorted(specific) if flags[option].present
    }
    for option in given:
        if option not in OPTIONS[name]:
            legal = ", ".join(f"--{legal}" for legal in OPTIONS[name])
            raise DeepLabError(f"--{option} does not apply to {name}; flags for {name}: {legal}")
    if "source" in OPTIONS[name] and not given.get("source"):
        raise DeepLabError(f"give --source=DIR, the directory of the raw files of {name}")
    for option in PATHS:
        if not is_local(given.get(option, "")):
            raise DeepLabError(
                f"--{option}={given[option]}: raw files are read from a local path only; copy the "
                "files to this machine, and give their path"
            )
    if "intensity_range" in given:
        given["intensity_range"] = _intensity_range(given["intensity_range"])
    if "bands" in given:
        given["bands"] = _bands(given["bands"])
    if "name" in given:
        given["config"] = _configuration(given.pop("name"))
    return given


def _intensity_range(values: list[str]) -> tuple[float, float]:
    try:
        low, high = map(float, values)
    except ValueError:
        raise DeepLabError(
            "--intensity_range takes two numbers, the pixel values that become 0 and 255, as in "
            "0,4095"
        ) from None
    return low, high


def _bands(values: list[str]) -> str | tuple[int, ...]:
    if values == ["all"]:
        return "all"
    if not values or not all(value.isdecimal() for value in values):
        raise DeepLabError(
            f"--bands={','.join(values)} is not legal; give positions of bands, counted from "
            "1, as in 4,3,2, or 'all'"
        )
    return tuple(map(int, values))


def _configuration(name: str) -> "tfds.core.BuilderConfig":
    # The import is local, so that --help and wrong flags do not wait for JAX.
    import tensorflow_datasets as tfds

    if not name.replace("_", "").replace("-", "").isalnum():
        raise DeepLabError(f"--name={name} is not legal; use only letters, digits, - and _")
    return tfds.core.BuilderConfig(name=name)
