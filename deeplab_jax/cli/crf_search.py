"""usage: deeplab-jax crf-search --model=M --dataset=NAME --split=S --data_dir=DIR [--flag=value …]

Searches a grid of dense CRF parameters for the highest mean IoU on a few images. Do not use these
images for the final evaluation. The searched parameters belong to the bilateral kernel: its weight
w1, and its standard deviations σα (position, in pixels) and σβ (color, in levels of 0..255). The
default grid is taken from DeepLab v2: w1 from 3 to 6, σα from 30 to 100, σβ from 3 to 6, 128
combinations in total. The network runs once per image, and the CRF runs once per image and
combination. --output writes a JSON file that --crf accepts.

examples:
  deeplab-jax crf-search --model=runs/voc --dataset=voc_segmentation --split=train \\
      --data_dir=data --limit=100 --output=runs/voc/crf.json
  deeplab-jax crf-search --model=runs/voc --dataset=voc_segmentation --split=train \\
      --data_dir=data --limit=30 --w1=3,5 --sigma_alpha=30,50,70,90 --sigma_beta=3,5
  deeplab-jax evaluate --model=runs/voc --dataset=voc_segmentation --split=val \\
      --data_dir=data --crf=runs/voc/crf.json
"""

from typing import Any

from deeplab_jax import crf
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError

# For each searched parameter: flag, field of CRFGrid, description of the parameter, and an example.
GRID_FLAGS = (
    ("w1", "bilateral_weights", "weight w1 of the bilateral kernel", "3,4,5,6"),
    (
        "sigma_alpha",
        "bilateral_position_stds",
        "spatial standard deviation σα of the bilateral kernel, in pixels",
        "30,50,70",
    ),
    (
        "sigma_beta",
        "bilateral_color_stds",
        "color standard deviation σβ of the bilateral kernel, in levels of 0..255",
        "3,5",
    ),
)
# Number of grid points in the printed table. The output file contains all points.
ROWS = 10


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define_inference()
    flags["crf"].help = "Not accepted by crf-search, which selects the CRF parameters itself."
    flags.define_dataset("train", limit=100)
    for flag, _, parameter, example in GRID_FLAGS:
        flags.define(
            flag,
            None,
            f"Values to try for the {parameter}, separated by commas, as in {example} (default: "
            "the values of DeepLab v2).",
        )
    flags.define(
        "output",
        None,
        "JSON file to write, with the best parameters and the mean IoU of every combination.",
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Runs the search, and prints the best CRF parameters and the path of the written file."""
    flags.refuse("crf-search", paths, "give a dataset as --dataset")
    flags.require("model", "dataset", "split", "data_dir")
    if flags.crf:
        raise DeepLabError("crf-search itself selects the CRF parameters; omit --crf")
    if flags.output and not flags.output.endswith(".json"):
        raise DeepLabError(
            f"--output={flags.output} must end with .json, because --crf accepts only such files; "
            "give a file name such as --output=crf.json"
        )
    settings, options = flags.split_settings(), flags.inference_options()
    values = {field: flags.numbers(flag, float, example) for flag, field, _, example in GRID_FLAGS}
    grid: dict[str, Any] = {field: tried for field, tried in values.items() if tried}
    flags.check_sources()
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.evaluation import CRFGrid, crf_search_table, search_crf

    found = search_crf(
        flags.load_predictor(console),
        flags.open_split(),
        CRFGrid(**grid),
        options=options,
        **settings,
        output=flags.output,
        reporter=console,
    )
    best = crf.CRFParameters(**found["parameters"])
    console.print(crf_search_table(found, ROWS))
    console.print(
        f"\nbest of {len(found['table'])} parameter combinations on {found['num_images']} images: "
        f"{best}"
    )
    if flags.output:
        console.message(f"to use these parameters, give --crf={flags.output}")
