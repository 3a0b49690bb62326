"""Flags, fine-tuning and report that `quantize` and `prune` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab_jax import checkpointing, data, inference, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def define_compression_flags(flags: Flags, steps: int) -> None:
    """Defines the flags of the model, its data set, fine-tuning and report.

    Args:
      flags: of the command.
      steps: default of --steps.
    """
    flags.define_model()
    flags.define_dataset("val")
    flags.define("output", None, "Model directory to write; must be new.")
    flags.define("steps", steps, "Number of fine-tuning steps.", least=0)
    flags.define_config()
    flags.define("tflite", None, "TFLite file to time for comparison.")


def training_directory(flags: Flags) -> Path:
    """Returns the workdir of the fine-tuning, beside the model directory."""
    output = Path(flags.output)
    return output.with_name(f"{output.name}-training")


def read_stored(flags: Flags, console: Console) -> "tuple[Path, checkpointing.StoredModel]":
    """Returns the path of the model that the flags name, and the model."""
    source = pretrained.locate(flags.model, console)
    return source, checkpointing.read_model(source, flags.checkpoint, flags.ema)


def fine_tuning_config(flags: Flags, source: Path, console: Console) -> "ConfigDict":
    """Returns the config of the fine-tuning, without network and initial weights.

    Args:
      flags: flags of the command.
      source: path of the model.
      console: prints the main fields.
    """
    # Imported here so that --help and wrong flags do not wait for JAX.
    from deeplab_jax import config as configs
    from deeplab_jax.compression.fine_tuning import recipe_of

    config = configs.load(flags.config) if flags.config else recipe_of(source)
    config.data.name, config.data.data_dir = flags.dataset, flags.data_dir
    for assignment in flags.override:
        field, _, _ = assignment.partition("=")
        if field.startswith("model."):
            raise DeepLabError(f"--config.{field}: the network is the model's; leave it out")
    flags.override_config(config)
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
        **flags.split_settings(),
        tflite=Path(flags.tflite) if flags.tflite else None,
        reporter=console,
    )
    write_comparison(Path(flags.output), report)
    console.print(report_table(report))
    console.message(f"the model and report.json are in {flags.output}")


def _checkpoint(flags: Flags, path: Path) -> tuple[str, bool | None]:
    """Returns the checkpoint to load; the flags select that of the given model only."""
    return ("best", None) if path == Path(flags.output) else (flags.checkpoint, flags.ema)
