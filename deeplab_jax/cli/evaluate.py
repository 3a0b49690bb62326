"""usage: deeplab-jax evaluate --model=M --dataset=NAME --split=S --data_dir=DIR [--flag=value …]

Measures a trained model on a split of a prepared data set: mean IoU and its company, of whole
images at one scale. M is the workdir of a training run, a model directory, or the name of
pretrained weights. With --output it writes metrics.json, confusion_matrix.png and
contact_sheet.png there.

example:
  deeplab-jax evaluate --model=runs/camvid --dataset=camvid --split=val --data_dir=data \\
      --output=runs/camvid/val
"""

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.model_flags import define_model_flags, load_predictor, parse_size, required
from deeplab_jax.errors import DeepLabError


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    define_model_flags(flags)
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("dataset", None, "Name of a prepared data set.", **own)
    absl_flags.DEFINE_string("split", "val", "Split of the data set.", **own)
    absl_flags.DEFINE_string("data_dir", None, "Directory of the prepared data sets.", **own)
    absl_flags.DEFINE_string("output", None, "Directory for the numbers and pictures.", **own)
    absl_flags.DEFINE_string(
        "size", None, "Height x width that images are padded to, as in 513x513.", **own
    )
    count = {"lower_bound": 1, "flag_values": flags}
    absl_flags.DEFINE_integer("limit", None, "Only the first so many images.", **count)
    absl_flags.DEFINE_integer("batch_size", 8, "Images at a time, over all devices.", **count)
    absl_flags.DEFINE_integer("workers", 0, "Processes that read ahead.", lower_bound=0, **own)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Evaluates, prints the table and says where the files are."""
    if paths:
        raise DeepLabError(f"evaluate takes no argument {paths[0]!r}; data sets go by --dataset")
    required(flags, "model", "dataset", "split", "data_dir")
    size = parse_size(flags.size)
    predictor = load_predictor(flags, console)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.data import open_dataset
    from deeplab_jax.evaluation import evaluate, table

    metrics = evaluate(
        predictor,
        open_dataset(flags.dataset, flags.data_dir, flags.split),
        size=size,
        batch_size=flags.batch_size,
        workers=flags.workers,
        limit=flags.limit,
        output=flags.output,
        reporter=console,
    )
    console.print(table(metrics))
    if flags.output:
        console.message(f"numbers and pictures are in {flags.output}")
