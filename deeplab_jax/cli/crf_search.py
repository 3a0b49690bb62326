"""usage: deeplab-jax crf-search --model=M --dataset=NAME --split=S --data_dir=DIR [--flag=value …]

Finds the dense CRF's parameters that suit a model: those with the highest mean IoU on a few images,
which should not be the ones that it is measured on afterwards. The grid is DeepLab v2's: w1 of 3 to
6, σα of 30 to 100 pixels, σβ of 3 to 6 levels, 128 points in all, unless flags give another. Every
image goes through the network once and through a CRF a point. With --output it writes a JSON file
that --crf takes.

examples:
  deeplab-jax crf-search --model=runs/voc --dataset=voc_segmentation --split=train \\
      --data_dir=data --limit=100 --output=runs/voc/crf.json
  deeplab-jax crf-search --model=runs/voc --dataset=voc_segmentation --split=train \\
      --data_dir=data --limit=30 --w1=3,5 --sigma_alpha=30,50,70,90 --sigma_beta=3,5
  deeplab-jax evaluate --model=runs/voc --dataset=voc_segmentation --split=val \\
      --data_dir=data --crf=runs/voc/crf.json
"""

from deeplab_jax import crf
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    Flags,
    check_sources,
    define_dataset_flags,
    define_inference_flags,
    define_model_flags,
    load_predictor,
    open_split,
    parse_numbers,
    parse_options,
    parse_size,
    refuse_arguments,
    required,
)
from deeplab_jax.errors import DeepLabError

# Flag, field of CRFGrid, and what it is.
GRID_FLAGS = (
    ("w1", "bilateral_weights", "Weights of the bilateral kernel to try, as in 3,4,5,6."),
    ("sigma_alpha", "bilateral_position_stds", "σα to try in pixels, as in 30,50,70."),
    ("sigma_beta", "bilateral_color_stds", "σβ to try in levels of 0..255, as in 3,5."),
)
# Of the table that is printed; the file has all.
ROWS = 10


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    define_model_flags(flags)
    define_inference_flags(flags)
    define_dataset_flags(flags, "train", limit=100)
    for flag, _, purpose in GRID_FLAGS:
        flags.define(flag, None, f"{purpose} Default: DeepLab v2's.")
    flags.define("output", None, "JSON file for the parameters and the table.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Searches, prints the best points and says where the file is."""
    refuse_arguments("crf-search", paths, "data sets go by --dataset")
    required(flags, "model", "dataset", "split", "data_dir")
    if flags.crf:
        raise DeepLabError("crf-search tries CRFs of its own; leave --crf out")
    size, options = parse_size(flags.size), parse_options(flags)
    values = {field: parse_numbers(flags[flag].value, flag, float) for flag, field, _ in GRID_FLAGS}
    check_sources(flags)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.evaluation import CRFGrid, crf_search_table, search_crf

    found = search_crf(
        load_predictor(flags, console),
        open_split(flags),
        CRFGrid(**{field: tried for field, tried in values.items() if tried}),
        options=options,
        size=size,
        batch_size=flags.batch_size,
        workers=flags.workers,
        limit=flags.limit,
        output=flags.output,
        reporter=console,
    )
    best = crf.CRFParameters(**found["parameters"])
    console.print(crf_search_table(found, ROWS))
    console.print(f"\nbest of {len(found['table'])} on {found['num_images']} images: {best}")
    if flags.output:
        console.message(f"use it as --crf={flags.output}")
