"""The flags that say which model a command uses."""

from typing import TYPE_CHECKING

from absl import flags as absl_flags

from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    from deeplab_jax.inference import ImageClassification, Predictor
    from deeplab_jax.reporter import Reporter

MODEL_HELP = "Workdir, model directory, or a name that `deeplab-jax models` lists."


def define_model_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --model, --checkpoint and --ema."""
    absl_flags.DEFINE_string("model", None, MODEL_HELP, flag_values=flags)
    absl_flags.DEFINE_string("checkpoint", "best", "best, last or a step.", flag_values=flags)
    absl_flags.DEFINE_bool(
        "ema", None, "Use the averaged parameters (default: if kept).", flag_values=flags
    )


def load_predictor(
    flags: absl_flags.FlagValues, reporter: "Reporter"
) -> "Predictor | ImageClassification":
    """Loads the model that the flags name.

    Raises:
      DeepLabError: --model is missing or names no model, or there is no such checkpoint.
    """
    required(flags, "model")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.loading import load

    return load(flags.model, flags.checkpoint, flags.ema, reporter)


def required(flags: absl_flags.FlagValues, *names: str) -> None:
    """Checks that flags were given.

    Raises:
      DeepLabError: names those that are missing.
    """
    missing = [f"--{name}" for name in names if not flags[name].value]
    if missing:
        raise DeepLabError(f"{', '.join(missing)} must be given; --help shows an example")


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Returns (height, width) of a flag such as 513x513, or None of None.

    Raises:
      DeepLabError: the text is something else.
    """
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise DeepLabError(f"size {text!r} is not legal; give height x width, as in 513x513")
    return int(height), int(width)
