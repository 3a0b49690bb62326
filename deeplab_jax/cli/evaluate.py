"""usage: deeplab-jax evaluate --model=M --dataset=NAME --split=S --data_dir=DIR [--flag=value …]

Measures a trained model on a split of a prepared data set: mean IoU and its company, of whole
images at one scale unless flags say otherwise. M is the workdir of a training run, a model
directory, or the name of pretrained weights. With --output it writes metrics.json,
confusion_matrix.png and contact_sheet.png there.

With --table it measures step by step what the flags ask for (output stride, scales, flip, CRF), and
tells each step's change with a 95 % interval; --output then takes strategies.json. Without such
flags the rows are those of DeepLab v3's table 6 (output strides 16 and 8, six scales, flips), and
a CRF.

examples:
  deeplab-jax evaluate --model=runs/camvid --dataset=camvid --split=val --data_dir=data \\
      --output=runs/camvid/val
  deeplab-jax evaluate --model=runs/camvid --dataset=camvid --split=val --data_dir=data \\
      --output_stride=8 --scales=0.5,0.75,1,1.25 --flip --crf --table
"""

from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    define_dataset_flags,
    define_host_flags,
    define_inference_flags,
    define_model_flags,
    joined_job,
    load_predictor,
    parse_numbers,
    parse_options,
    parse_size,
    required,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

if TYPE_CHECKING:
    from deeplab_jax.data import Dataset
    from deeplab_jax.inference import InferenceOptions, Predictor


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    define_model_flags(flags)
    define_inference_flags(flags)
    define_dataset_flags(flags, "val")
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "Directory for the numbers and pictures.", **own)
    absl_flags.DEFINE_string(
        "trimap", None, "Widths in pixels of bands around void to measure, as in 1,5,10.", **own
    )
    absl_flags.DEFINE_bool("table", False, "Measure each step of the flags by itself.", **own)
    absl_flags.DEFINE_integer(
        "space", 1, "Devices that share the rows of an image.", lower_bound=1, **own
    )
    define_host_flags(flags)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Evaluates, prints the table and says where the files are."""
    if paths:
        raise DeepLabError(f"evaluate takes no argument {paths[0]!r}; data sets go by --dataset")
    required(flags, "model", "dataset", "split", "data_dir")
    widths = parse_numbers(flags.trimap, "trimap", int)
    if flags.table and widths:
        raise DeepLabError("--trimap is not part of --table; give one of them")
    with joined_job(flags, console) as reporter:
        text = _measure(flags, widths, reporter)
    # One process speaks for all.
    if reporter is console:
        console.print(text)
        if flags.output:
            console.message(f"numbers and pictures are in {flags.output}")


def _measure(flags: absl_flags.FlagValues, widths: tuple[int, ...], reporter: Reporter) -> str:
    """Evaluates and returns the table."""
    options, size = parse_options(flags), parse_size(flags.size)
    predictor = load_predictor(flags, reporter)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.data import open_dataset
    from deeplab_jax.evaluation import evaluate, table
    from deeplab_jax.parallel import make_mesh

    dataset = open_dataset(flags.dataset, flags.data_dir, flags.split)
    settings = {
        "size": size,
        "batch_size": flags.batch_size,
        "mesh": make_mesh(space=flags.space),
        "workers": flags.workers,
        "limit": flags.limit,
        "output": flags.output,
        "reporter": reporter,
    }
    if flags.table:
        return _compare(predictor, dataset, options, settings)
    return table(evaluate(predictor, dataset, options=options, trimap_widths=widths, **settings))


def _compare(
    predictor: "Predictor",
    dataset: "Dataset",
    options: "InferenceOptions",
    settings: dict[str, Any],
) -> str:
    from deeplab_jax.evaluation import (
        compare_strategies,
        comparison_table,
        papers_steps,
        settings_lines,
        strategy_steps,
    )

    steps = strategy_steps(options)
    if len(steps) == 1:
        steps = papers_steps(options)
    rows = compare_strategies(predictor, dataset, steps, **settings)
    lines = ["", "settings of the last row:", *settings_lines(rows[-1]["settings"])]
    return "\n".join([comparison_table(rows), *lines])
