"""Flags, fine-tuning and report of `quantize` and `prune`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab_jax import checkpointing, data, inference, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    Flags,
    define_config_flags,
    define_dataset_flags,
    define_model_flags,
    override_config,
    parse_size,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import check_new_directory

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def define_compression_flags(flags: Flags, steps: int) -> None:
    """Defines the flags of the model, its data set, fine-tuning and report.

    Args:
      flags: of the command.
      steps: default of --steps.
    """
    define_model_flags(flags)
    define_dataset_flags(flags, "val")
    flags.define("output", None, "Model directory to write; must be new.")
    flags.define("steps", steps, "Number of fine-tuning steps.", least=0)
    define_config_flags(flags)
    flags.define("tflite", None, "TFLite file to time in the same run.")


def check_output(flags: Flags) -> None:
    """Checks before any work that --output is free.

    Raises:
      DeepLabError: there is something.
    """
    check_new_directory(Path(flags.output))


def training_directory(flags: Flags) -> Path:
    """Returns the workdir of the fine-tuning, beside the model directory."""
    output = Path(flags.output)
    return output.with_name(f"{output.name}-training")


def read_stored(flags: Flags, console: Console) -> "tuple[Path, checkpointing.StoredModel]":
    """Returns where the model that the flags name is on disk, and the model."""
    source = pretrained.locate(flags.model, console)
    return source, checkpointing.read_model(source, flags.checkpoint, flags.ema)


def fine_tuning_config(flags: Flags, source: Path, console: Console) -> "ConfigDict":
    """Returns the recipe of the fine-tuning, but for network and start.

    Args:
      flags: of the command.
      source: where the model is on disk.
      console: prints the recipe.
    """
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax import config as configs
    from deeplab_jax.compression.fine_tuning import recipe_of

    config = configs.load(flags.config) if flags.config else recipe_of(source)
    config.data.name, config.data.data_dir = flags.dataset, flags.data_dir
    for assignment in flags.override:
        field, _, _ = assignment.partition("=")
        if field.startswith("model."):
            raise DeepLabError(f"--config.{field}: the network is the model's; leave it out")
    override_config(flags, config)
    console.message(
        f"fine-tuning: {config.optimizer.name}, learning rate "
        f"{config.schedule.base_learning_rate:g}, batches of {config.training.batch_size}, crops "
        f"of {config.augmentation.crop_size[0]}×{config.augmentation.crop_size[1]}"
    )
    return config


def measure_and_print(
    flags: Flags, models: Mapping[str, Path], dataset: "data.Dataset", console: Console
) -> None:
    """Measures models side by side, prints the table and writes it beside the new model."""
    from deeplab_jax.compression.effects import compare, report_table, write_comparison

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


def _checkpoint(flags: Flags, path: Path) -> tuple[str, bool | None]:
    """The flags' checkpoint is of the model given, not of what was made of it."""
    return ("best", None) if path == Path(flags.output) else (flags.checkpoint, flags.ema)
