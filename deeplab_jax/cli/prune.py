"""usage: deeplab-jax prune --model=M --output=DIR --dataset=NAME --data_dir=DIR [--flag=value …]

Makes a model smaller and trains it on. With --structured whole channels go, of bottlenecks, ASPP's
branches and the decoder, until --macs=0.5 of the multiply-adds are left: the network in DIR is
really smaller. Without it --sparsity=0.5 of the weights of every dense kernel become 0 while the
network trains, the smallest first: it is smaller when compressed, and not faster by itself.

Training (--steps=N) has the recipe of the model's workdir or of --config=FILE, with
--config.FIELD=VALUE on top. It is in DIR-training and goes on there when it is interrupted. Mean
IoU, size and latency before and after are printed and written to DIR/report.json.

examples:
  deeplab-jax prune --model=runs/camvid --output=models/camvid_half --dataset=camvid \\
      --data_dir=data --structured --macs=0.5 --steps=300
  deeplab-jax prune --model=runs/camvid --output=models/camvid_sparse --dataset=camvid \\
      --data_dir=data --sparsity=0.8 --steps=300 --config.training.ema_decay=0
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from deeplab_jax.cli.compression import (
    check_output,
    define_compression_flags,
    fine_tuning_config,
    measure_and_print,
    open_dataset_of,
    read_stored,
    training_directory,
)
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import parse_size, required
from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    from deeplab_jax.checkpointing import StoredModel
    from deeplab_jax.training.setup import Run

TEACHER_TEMPERATURE = 2.0
CRITERIA = ("reconstruction", "batch_norm_scale", "norm")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    define_compression_flags(flags, steps=0)
    own = {"flag_values": flags}
    absl_flags.DEFINE_bool("structured", False, "Take whole channels away.", **own)
    absl_flags.DEFINE_float("macs", 0.5, "Share of the multiply-adds that stays.", **own)
    absl_flags.DEFINE_float("sparsity", 0.5, "Share of the weights that become 0.", **own)
    absl_flags.DEFINE_enum("criterion", CRITERIA[0], CRITERIA, "By which channels go.", **own)
    absl_flags.DEFINE_float(
        "teacher_weight", 0.0, "Of what the unpruned model says, in training; 0: nothing.", **own
    )
    count = {"lower_bound": 1, "flag_values": flags}
    absl_flags.DEFINE_integer("multiple", 8, "Widths are multiples of it.", **count)
    absl_flags.DEFINE_integer(
        "calibration_limit", 32, "Training images on which channels are measured.", **count
    )


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Prunes, trains, measures and says where the model is."""
    if paths:
        raise DeepLabError(f"prune takes no argument {paths[0]!r}; the model goes by --model")
    required(flags, "model", "output", "dataset", "data_dir")
    if not flags.structured and not flags.steps:
        raise DeepLabError("weights are pruned while a network trains: give --steps=N")
    check_output(flags)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax import checkpointing
    from deeplab_jax.compression.fine_tuning import distilled, fine_tune
    from deeplab_jax.compression.magnitude_pruning import pruned_gradually
    from deeplab_jax.compression.pruning import check_prunable

    source, stored = read_stored(flags, console)
    check_prunable(stored)
    dataset = open_dataset_of(flags)
    made = _narrowed(flags, stored, console) if flags.structured else stored

    def adjust(run: "Run") -> "Run":
        if not flags.structured:
            run = pruned_gradually(run, flags.sparsity)
        if flags.teacher_weight:
            run = distilled(run, stored, flags.teacher_weight, TEACHER_TEMPERATURE)
        return run

    if flags.steps:
        config = fine_tuning_config(flags, source, console)
        made = fine_tune(made, config, training_directory(flags), flags.steps, console, adjust)
    checkpointing.write_model(Path(flags.output), made.description, made.variables)
    measure_and_print(flags, {"before": source, "pruned": Path(flags.output)}, dataset, console)


def _narrowed(
    flags: absl_flags.FlagValues, stored: "StoredModel", console: Console
) -> "StoredModel":
    from deeplab_jax.compression.calibration import calibration_images
    from deeplab_jax.compression.pruning import prune_channels
    from deeplab_jax.data import open_dataset
    from deeplab_jax.inference.padding import padded_size

    training = open_dataset(flags.dataset, flags.data_dir, "train")
    size = parse_size(flags.size)
    images = calibration_images(
        training, stored.model, limit=flags.calibration_limit, size=size, reporter=console
    )
    return prune_channels(
        stored,
        images,
        flags.macs,
        size=padded_size(stored.model, size or training.largest_size(), None),
        criterion=flags.criterion,
        multiple=flags.multiple,
    )
