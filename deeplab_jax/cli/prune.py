"""usage: deeplab-jax prune --model=M --output=DIR --dataset=NAME --data_dir=DIR [--flag=value …]

Prunes a model and fine-tunes it. There are two kinds of pruning:

With --structured, whole channels are removed from bottlenecks, ASPP branches and the decoder, until
the remaining fraction of the multiply-adds is at most --macs (default: 0.5). The network is then
smaller and faster.

Without --structured, single weights are set to 0 during training: the weights with the smallest
absolute values in every convolution kernel that is not depthwise. After training, a fraction
--sparsity (default: 0.5) of each such kernel is 0. The resulting model is smaller when it is
compressed (zip), but not faster.

Fine-tuning (--steps=N) uses the config of the model's workdir or --config=FILE, with overrides
--config.FIELD=VALUE, and writes to DIR-training. To resume an interrupted run, repeat the command.
The command prints mean IoU, size and latency before and after pruning, and writes them to
DIR/report.json.

examples:
  deeplab-jax prune --model=runs/camvid --output=models/camvid_half --dataset=camvid \\
      --data_dir=data --structured --macs=0.5 --steps=300
  deeplab-jax prune --model=runs/camvid --output=models/camvid_sparse --dataset=camvid \\
      --data_dir=data --sparsity=0.8 --steps=300 --config.training.ema_decay=0
"""

import dataclasses
from typing import TYPE_CHECKING

from deeplab_jax import data
from deeplab_jax.cli import compression
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_size
from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    from deeplab_jax.checkpointing import StoredModel
    from deeplab_jax.training.setup import Run

TEACHER_TEMPERATURE = 2.0
# Flags that apply only with --structured, and all flags that determine which channels are removed.
STRUCTURED_ONLY = ("macs", "criterion", "multiple", "calibration_limit")
NARROWING = (*STRUCTURED_ONLY, "size")
CRITERIA = ("reconstruction", "batch_norm_scale", "norm")


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    compression.define_compression_flags(flags)
    flags.define("structured", False, "Remove whole channels instead of single weights.")
    flags.define(
        "macs",
        0.5,
        "Maximum fraction of the multiply-adds to keep, in (0, 1]; used only with --structured.",
    )
    flags.define(
        "sparsity",
        0.5,
        "Fraction of the weights to set to 0, in (0, 1); used only without --structured.",
    )
    flags.define(
        "criterion",
        CRITERIA[0],
        "Criterion for ranking channels to prune: reconstruction (error that pruning causes in the "
        "outputs of the following layers), batch_norm_scale (absolute value of the scale of batch "
        "normalization) or norm (L1 norm of the kernel).",
        choices=CRITERIA,
    )
    flags.define(
        "teacher_weight",
        0.0,
        "Weight of the distillation loss with the unpruned model as teacher; 0 disables the loss.",
    )
    flags.define(
        "multiple",
        8,
        "The number of channels that a pruned layer keeps is rounded up to a multiple of this "
        "number.",
        least=1,
    )
    flags.define(
        "calibration_limit",
        32,
        "Number of images of the split train that are used to rank the channels.",
        least=1,
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prunes, fine-tunes and evaluates a model; prints the report and the path of the new model."""
    _check_kind(flags)
    source, stored, dataset = compression.open_sources(flags, "prune", paths, console)
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.compression.fine_tuning import digest, distilled
    from deeplab_jax.compression.magnitude_pruning import pruned_gradually
    from deeplab_jax.compression.pruning import check_prunable

    def adjust(run: "Run") -> "Run":
        if flags.structured:
            settings = {name: flags[name].value for name in NARROWING}
            settings["pruned_model"] = digest(stored)
            run = dataclasses.replace(run, adjustments=run.adjustments | settings)
        else:
            run = pruned_gradually(run, flags.sparsity)
        if flags.teacher_weight:
            run = distilled(run, stored, flags.teacher_weight, TEACHER_TEMPERATURE)
        return run

    check_prunable(stored)
    made = _narrowed(flags, stored, console) if flags.structured else stored
    made = compression.fine_tuned(flags, source, made, adjust, console)
    if not flags.structured:
        made = _with_sparsity(made, flags.sparsity)
    compression.write_compressed(flags, source, "pruned", made, dataset, console)


def _check_kind(flags: Flags) -> None:
    """Checks that all given flags apply to the kind of pruning that --structured selects.

    Raises:
      DeepLabError: a flag belongs to the other kind of pruning, or --steps is missing.
    """
    given = [name for name in STRUCTURED_ONLY if not flags[name].using_default_value]
    if given and not flags.structured:
        raise DeepLabError(
            f"--{given[0]} requires --structured; give --structured, or omit --{given[0]}"
        )
    if flags.structured and not flags["sparsity"].using_default_value:
        raise DeepLabError(
            "--sparsity cannot be combined with --structured, which removes whole channels (--macs "
            "sets how many); omit one of them"
        )
    if not flags.structured and not flags.steps:
        raise DeepLabError(
            "without --structured, weights are pruned during fine-tuning; give --steps=N, the "
            "number of training steps"
        )


def _with_sparsity(made: "StoredModel", sparsity: float) -> "StoredModel":
    """Returns a copy of the model `made` with the sparsity added to `description.source`."""
    origin = made.description.source
    pruned = origin.get("pruned", {}) | {"sparsity": sparsity}
    return made.changed(made.variables, source=origin | {"pruned": pruned})


def _narrowed(flags: Flags, stored: "StoredModel", console: Console) -> "StoredModel":
    """Removes channels from a model, and returns the smaller model.

    If the workdir contains a fine-tuning run to resume, nothing is pruned; the smaller model with
    which this run started is read and returned. The run can be resumed only from the same weights,
    and pruning the original model again could result in other rounding errors.
    """
    from deeplab_jax.compression.calibration import calibration_images
    from deeplab_jax.compression.fine_tuning import initial_model
    from deeplab_jax.compression.pruning import prune_channels
    from deeplab_jax.data.datasets import largest_size
    from deeplab_jax.inference.padding import padded_size

    started = initial_model(compression.training_workdir(flags)) if flags.steps else None
    if started is not None:
        return started
    dataset = data.open_dataset(flags.dataset, flags.data_dir, "train")
    limit, size = flags.calibration_limit, parse_size(flags.size)
    return prune_channels(
        stored,
        calibration_images(dataset, stored.model, limit=limit, size=size, reporter=console),
        flags.macs,
        size=padded_size(stored.model, size or largest_size(dataset), None),
        criterion=flags.criterion,
        multiple=flags.multiple,
    )
