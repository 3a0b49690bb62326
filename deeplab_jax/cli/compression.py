"""What `quantize`, `prune` and `distill` have in common: flags, models, fine-tuning, the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from deeplab_jax import config as configs
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import define_dataset_flags, define_model_flags, parse_size
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import check_new_directory

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from deeplab_jax.checkpointing import StoredModel
    from deeplab_jax.data import Dataset


def define_compression_flags(flags: absl_flags.FlagValues, steps: int) -> None:
    """Defines the flags of the model, its data set, fine-tuning and report.

    Args:
      flags: of the command.
      steps: default of --steps.
    """
    define_model_flags(flags)
    define_dataset_flags(flags, "val")
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "Model directory to write; must be new.", **own)
    absl_flags.DEFINE_integer("steps", steps, "Of fine-tuning.", lower_bound=0, **own)
    absl_flags.DEFINE_string(
        "config", None, "Recipe of the fine-tuning (default: the workdir's own).", **own
    )
    absl_flags.DEFINE_multi_string(
        "override", [], "FIELD=VALUE of it; --config.FIELD=VALUE says the same.", **own
    )
    absl_flags.DEFINE_string("tflite", None, "A TFLite file to time in the same run.", **own)


def check_output(flags: absl_flags.FlagValues) -> None:
    """Checks before any work that --output is free.

    Raises:
      DeepLabError: there is something.
    """
    check_new_directory(Path(flags.output))


def training_directory(flags: absl_flags.FlagValues) -> Path:
    """Returns the workdir of the fine-tuning, beside the model directory."""
    output = Path(flags.output)
    return output.with_name(f"{output.name}-training")


def read_stored(flags: absl_flags.FlagValues, console: Console) -> "tuple[Path, StoredModel]":
    """Returns where the model that the flags name is on disk, and the model."""
    from deeplab_jax.checkpointing import read_model
    from deeplab_jax.pretrained import locate

    source = locate(flags.model, console)
    return source, read_model(source, flags.checkpoint, flags.ema)


def open_dataset_of(flags: absl_flags.FlagValues) -> "Dataset":
    """Returns the split that the report measures on."""
    from deeplab_jax.data import open_dataset

    return open_dataset(flags.dataset, flags.data_dir, flags.split)


def fine_tuning_config(
    flags: absl_flags.FlagValues, source: Path, console: Console
) -> "ConfigDict":
    """Returns the recipe of the fine-tuning, but for network and start.

    Args:
      flags: of the command.
      source: where the model is on disk.
      console: hears what the recipe is.
    """
    from deeplab_jax.compression.fine_tuning import recipe_of

    config = configs.load(flags.config) if flags.config else recipe_of(source)
    config.data.name, config.data.data_dir = flags.dataset, flags.data_dir
    for assignment in flags.override:
        field, _, value = assignment.partition("=")
        if field.startswith("model."):
            raise DeepLabError(f"--config.{field}: the network is the model's; leave it out")
        configs.override(config, field, value)
    console.message(
        f"fine-tuning: {config.optimizer.name}, learning rate "
        f"{config.schedule.base_learning_rate:g}, batches of {config.training.batch_size}, crops "
        f"of {config.augmentation.crop_size[0]}×{config.augmentation.crop_size[1]}"
    )
    return config


def measure_and_print(
    flags: absl_flags.FlagValues, models: Mapping[str, Path], dataset: "Dataset", console: Console
) -> None:
    """Measures models side by side, prints the table and writes it beside the new model."""
    from deeplab_jax import inference
    from deeplab_jax.compression.comparison import compare, report_table, write_comparison

    predictors = {
        name: inference.load(path, *_checkpoint(flags, path)) for name, path in models.items()
    }
    report = compare(
        predictors,
        dataset,
        size=parse_size(flags.size),
        batch_size=flags.batch_size,
        workers=flags.workers,
        limit=flags.limit,
        tflite=Path(flags.tflite) if flags.tflite else None,
        reporter=console,
    )
    write_comparison(Path(flags.output), report)
    console.print(report_table(report))
    console.message(f"the model and report.json are in {flags.output}")


def _checkpoint(flags: absl_flags.FlagValues, path: Path) -> tuple[str, bool | None]:
    """The flags' checkpoint is of the model given, not of what was made of it."""
    return ("best", None) if path == Path(flags.output) else (flags.checkpoint, flags.ema)
