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

from deeplab_jax import checkpointing, data
from deeplab_jax.cli.compression import (
    check_output,
    define_compression_flags,
    fine_tuning_config,
    measure_and_print,
    read_stored,
    training_directory,
)
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    Flags,
    check_sources,
    open_split,
    parse_size,
    refuse_arguments,
    required,
)
from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    from deeplab_jax.training.setup import Run

TEACHER_TEMPERATURE = 2.0
CRITERIA = ("reconstruction", "batch_norm_scale", "norm")


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    define_compression_flags(flags, steps=0)
    flags.define("structured", False, "Remove whole channels.")
    flags.define("macs", 0.5, "Fraction of the multiply-adds to keep, with --structured.")
    flags.define("sparsity", 0.5, "Fraction of the weights that become 0, without --structured.")
    flags.define(
        "criterion", CRITERIA[0], "Criterion for ranking channels to prune.", choices=CRITERIA
    )
    flags.define("teacher_weight", 0.0, "Weight of the unpruned model as a teacher; 0: none.")
    flags.define("multiple", 8, "Divisor of the pruned widths.", least=1)
    flags.define("calibration_limit", 32, "Number of images that channels are ranked on.", least=1)


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prunes, trains, measures and says where the model is."""
    refuse_arguments("prune", paths, "the model goes by --model")
    required(flags, "model", "output", "dataset", "data_dir")
    if not flags.structured and not flags.steps:
        raise DeepLabError("weights are pruned while a network trains: give --steps=N")
    check_output(flags)
    check_sources(flags)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.compression.fine_tuning import distilled, fine_tune
    from deeplab_jax.compression.magnitude_pruning import pruned_gradually
    from deeplab_jax.compression.pruning import check_prunable

    source, stored = read_stored(flags, console)
    check_prunable(stored)
    dataset = open_split(flags)
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
    flags: Flags, stored: "checkpointing.StoredModel", console: Console
) -> "checkpointing.StoredModel":
    from deeplab_jax.compression.calibration import calibration_images
    from deeplab_jax.compression.pruning import prune_channels
    from deeplab_jax.data.datasets import largest_size
    from deeplab_jax.inference.padding import padded_size

    training = data.open_dataset(flags.dataset, flags.data_dir, "train")
    size = parse_size(flags.size)
    images = calibration_images(
        training, stored.model, limit=flags.calibration_limit, size=size, reporter=console
    )
    return prune_channels(
        stored,
        images,
        flags.macs,
        size=padded_size(stored.model, size or largest_size(training), None),
        criterion=flags.criterion,
        multiple=flags.multiple,
    )
