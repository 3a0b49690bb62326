"""Common steps of `quantize` and `prune`: flags, fine-tuning, writing the model and a report."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab_jax import checkpointing, data, inference, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, check_new_directory, replacing_directory

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from deeplab_jax.checkpointing import StoredModel
    from deeplab_jax.training.setup import Run


def define_compression_flags(flags: Flags) -> None:
    """Defines the common flags of `quantize` and `prune`."""
    flags.define_model()
    flags.define_dataset("val")
    flags.define("output", None, "Model directory to write. It must be empty or not exist yet.")
    flags.define("steps", 0, "Number of fine-tuning steps.", least=0)
    flags.define_config()
    flags.define("tflite", None, "TFLite file whose latency is measured for comparison.")


def open_sources(
    flags: Flags, command: str, paths: list[str], console: Console
) -> "tuple[Path, StoredModel, data.Dataset]":
    """Checks the flags, and opens the model and the dataset split.

    Returns:
      The path of the model, the model, and the split to evaluate on.

    Raises:
      DeepLabError: a flag is missing or has no effect, an argument is not a flag, --output exists
        and is not empty, the model or the dataset does not exist, the model cannot be evaluated on
        the dataset, the file given by --tflite cannot be run, or the config of the fine-tuning run
        is invalid.
    """
    flags.refuse(command, paths, "give the model as --model")
    flags.require("model", "output", "dataset", "data_dir")
    _check_fine_tuning(flags)
    check_new_directory(as_path(flags.output))
    settings = flags.split_settings()
    flags.check_sources()
    source = pretrained.locate(flags.model, console)
    stored = checkpointing.read_model(source, flags.checkpoint, flags.ema)
    dataset = flags.open_split()
    # The report is made after the compression, so everything that it requires is checked first.
    _check_evaluation(inference.predictor_of(stored, str(source)), dataset, settings)
    if flags.tflite:
        from deeplab_jax.compression.effects import tflite_call

        tflite_call(as_path(flags.tflite))
    if flags.steps:
        _fine_tuning_config(flags, source)
    return source, stored, dataset


def _check_fine_tuning(flags: Flags) -> None:
    """Checks that flags for fine-tuning are given only if --steps is above 0.

    Raises:
      DeepLabError: a flag for fine-tuning is given, and --steps is 0, the default.
    """
    shown = {
        "config": "--config",
        "override": "--config.FIELD=VALUE",
        "teacher_weight": "--teacher_weight",
    }
    given = [flag for name, flag in shown.items() if name in flags and flags[name].value]
    if given and not flags.steps:
        raise DeepLabError(
            f"{given[0]} requires --steps=N, the number of fine-tuning steps; give --steps=N, or "
            f"omit {given[0]}"
        )


def _check_evaluation(
    predictor: "inference.Predictor | inference.ImageClassification",
    dataset: "data.Dataset",
    settings: dict[str, Any],
) -> None:
    """Checks that a model can be evaluated on a split.

    Args:
      predictor: model to evaluate.
      dataset: split to evaluate on.
      settings: keyword arguments of `evaluate`, including `size`.

    Raises:
      DeepLabError: the model classifies whole images, the model and the split have different bands
        or numbers of classes, or an image is larger than `size`.
    """
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.evaluation.passes import EvaluationSettings, make_inference

    make_inference(predictor, dataset, EvaluationSettings(**settings))


def fine_tuned(
    flags: Flags,
    source: Path,
    stored: "StoredModel",
    adjust: "Callable[[Run], Run]",
    console: Console,
) -> "StoredModel":
    """Fine-tunes a model for --steps steps, and returns the fine-tuned model.

    The workdir of the training run is `training_workdir(flags)`.

    Args:
      flags: flags of the command.
      source: directory of the model. If it contains a config, as a workdir does, this config is the
        default of --config.
      stored: model to fine-tune; with --steps=0 it is returned unchanged.
      adjust: function that takes the run before it starts and returns the modified run.
      console: receives progress events.
    """
    from deeplab_jax.compression.fine_tuning import fine_tune

    if not flags.steps:
        return stored
    config, workdir = _fine_tuning_config(flags, source), training_workdir(flags)
    console.message(
        f"fine-tuning: {config.optimizer.name}, learning rate "
        f"{config.schedule.base_learning_rate:g}, batches of {config.training.batch_size}, crops "
        f"of {config.augmentation.crop_size[0]}×{config.augmentation.crop_size[1]}"
    )
    return fine_tune(stored, config, workdir, flags.steps, console, adjust)


def training_workdir(flags: Flags) -> Path:
    """Returns the workdir of the fine-tuning run: the path given by --output, plus `-training`."""
    output = as_path(flags.output)
    return output.with_name(f"{output.name}-training")


def _fine_tuning_config(flags: Flags, source: Path) -> "ConfigDict":
    """Returns the config of the fine-tuning run.

    `fine_tune` replaces the network and the initial weights in this config by those of the model
    to fine-tune.

    Args:
      flags: flags of the command.
      source: directory of the model. If it contains a config, as a workdir does, this config is the
        default of --config.

    Raises:
      DeepLabError: the config is invalid, or an override sets a field of the network.
    """
    from deeplab_jax import config as configs
    from deeplab_jax.compression.fine_tuning import recipe_of

    config = configs.load(flags.config) if flags.config else recipe_of(source)
    config.data.name, config.data.data_dir = flags.dataset, flags.data_dir
    for assignment in flags.override:
        field, _, _ = assignment.partition("=")
        if field.startswith("model."):
            raise DeepLabError(
                f"--model defines the network, so --config.{field} cannot be set; omit "
                f"--config.{field}"
            )
    flags.override_config(config)
    configs.check(config)
    return config


def write_compressed(
    flags: Flags,
    source: Path,
    name: str,
    made: "StoredModel",
    dataset: "data.Dataset",
    console: Console,
) -> None:
    """Compares a model before and after compression; writes the compressed model and a report.

    If the comparison is interrupted, nothing is written, and the command can be repeated.

    Args:
      flags: flags of the command.
      source: path of the model before compression.
      name: name of the compressed model in the report, such as `pruned`.
      made: compressed model.
      dataset: split to evaluate on.
      console: prints the report as a table, and receives progress events.
    """
    from deeplab_jax.compression.effects import compare, report_table, write_comparison

    output, before = as_path(flags.output), inference.load(source, flags.checkpoint, flags.ema)
    report = compare(
        {"before": before, name: inference.predictor_of(made, str(output))},
        dataset,
        **flags.split_settings(),
        tflite=as_path(flags.tflite) if flags.tflite else None,
        reporter=console,
    )
    with replacing_directory(output) as folder:
        checkpointing.write_model(folder, made.description, made.variables)
        write_comparison(folder, report)
    console.print(report_table(report))
    console.message(f"the model and report.json are in {output}")
