"""The flags of the commands: definition, groups that several commands share, and their values."""

import ast
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from deeplab_jax import data, inference, loading, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

if TYPE_CHECKING:
    from ml_collections import ConfigDict

MODEL_HELP = "Workdir, model directory, or a name that `deeplab-jax models` lists."
DEFINE = {
    bool: absl_flags.DEFINE_bool,
    float: absl_flags.DEFINE_float,
    int: absl_flags.DEFINE_integer,
    list: absl_flags.DEFINE_list,
    str: absl_flags.DEFINE_string,
}


class Flags(absl_flags.FlagValues):
    """The flags of one command."""

    def define(
        self,
        name: str,
        default: Any,
        help: str,
        *,
        kind: type | None = None,
        choices: Sequence[str] = (),
        least: int | None = None,
    ) -> None:
        """Defines a flag.

        Args:
          name: of the flag.
          default: its value where it is not given.
          help: noun phrase with unit and range, printed by --help.
          kind: bool, float, int, list or str; None: that of the default, str without one.
          choices: the legal values; empty: all of the kind.
          least: smallest legal integer.
        """
        if choices:
            absl_flags.DEFINE_enum(name, default, choices, help, flag_values=self)
            return
        bound = {} if least is None else {"lower_bound": least}
        kind = kind or (str if default is None else type(default))
        DEFINE[kind](name, default, help, flag_values=self, **bound)


def required(flags: Flags, *names: str) -> None:
    """Checks that flags were given.

    Raises:
      DeepLabError: names those that are missing.
    """
    missing = [f"--{name}" for name in names if not flags[name].value]
    if missing:
        raise DeepLabError(f"{', '.join(missing)} must be given; --help shows an example")


def refuse_arguments(command: str, arguments: Sequence[str], instead: str = "") -> None:
    """Checks that no arguments besides flags were given.

    Args:
      command: name of the command.
      arguments: what was given besides flags.
      instead: what to do with them, for the message.

    Raises:
      DeepLabError: there is an argument.
    """
    if arguments:
        instead = instead or f"see deeplab-jax {command} --help"
        raise DeepLabError(f"{command} takes no argument {arguments[0]!r}; {instead}")


def define_model_flags(flags: Flags) -> None:
    """Defines --model, --checkpoint and --ema."""
    flags.define("model", None, MODEL_HELP)
    flags.define("checkpoint", "best", "Checkpoint of a workdir: best, last or a step.")
    flags.define("ema", None, "Use the averaged parameters (default: if kept).", kind=bool)


def load_predictor(
    flags: Flags, reporter: Reporter
) -> "inference.Predictor | inference.ImageClassification":
    """Loads the model that the flags name.

    Raises:
      DeepLabError: --model is missing or names no model, or there is no such checkpoint.
    """
    required(flags, "model")
    return loading.load(flags.model, flags.checkpoint, flags.ema, reporter)


def define_config_flags(flags: Flags) -> None:
    """Defines --config and --override, which --config.FIELD=VALUE is turned into."""
    flags.define("config", None, "Path or name of a config, with :arguments.")
    absl_flags.DEFINE_multi_string(
        "override", [], "FIELD=VALUE; the same as --config.FIELD=VALUE.", flag_values=flags
    )


def read_config(flags: Flags) -> "ConfigDict":
    """Returns the config that the flags name, with the values of --config.FIELD=VALUE.

    Raises:
      DeepLabError: there is no such config or field, or a value is of the wrong type.
    """
    # Imported late: most commands need no ml_collections.
    from deeplab_jax import config

    return override_config(flags, config.load(flags.config))


def override_config(flags: Flags, config: "ConfigDict") -> "ConfigDict":
    """Sets the fields of --config.FIELD=VALUE in a config and returns it.

    Raises:
      DeepLabError: there is no such field, or a value is of the wrong type.
    """
    from deeplab_jax.config import override

    for assignment in flags.override:
        field, _, value = assignment.partition("=")
        override(config, field, value)
    return config


def define_dataset_flags(flags: Flags, split: str, limit: int | None = None) -> None:
    """Defines --dataset, --split, --data_dir, --size, --limit, --batch_size and --workers.

    Args:
      flags: of the command.
      split, limit: defaults of the flags.
    """
    flags.define("dataset", None, "Name of a prepared data set.")
    flags.define("split", split, "Split of the data set.")
    flags.define("data_dir", None, "Directory of the prepared data sets.")
    flags.define("size", None, "Height x width in pixels that images are padded to, as in 513x513.")
    flags.define("limit", limit, "Maximum number of images, the first ones.", kind=int, least=1)
    flags.define("batch_size", 8, "Number of images per batch, across all devices.", least=1)
    flags.define("workers", 0, "Number of processes that read ahead.", least=0)


def open_split(flags: Flags) -> "data.Dataset":
    """Opens the split that the flags name.

    Raises:
      DeepLabError: as `open_dataset`.
    """
    return data.open_dataset(flags.dataset, flags.data_dir, flags.split)


def check_sources(flags: Flags) -> None:
    """Checks, before JAX is imported, that --model and --dataset name something.

    Raises:
      DeepLabError: one of them does not.
    """
    pretrained.check_reference(flags.model)
    data.prepared_directory(flags.dataset, flags.data_dir)


class _NameParser(absl_flags.ArgumentParser):
    """Reads --crf, --crf=NAME and --nocrf; absl says `true` and `false` where no value is given."""

    syntactic_help = "a name, or nothing for the default"

    def parse(self, argument: str | None) -> str | None:
        return {"true": "default", "false": None}.get(argument, argument)


def define_inference_flags(flags: Flags) -> None:
    """Defines --output_stride, --scales, --flip, --tile, --overlap and --crf."""
    flags.define(
        "output_stride", None, "Output stride of the encoder (default: as trained).", kind=int
    )
    flags.define("scales", "1", "Relative image sizes whose results are fused, as in 0.5,0.75,1.")
    flags.define("flip", False, "Fuse the mirrored image's result, too.")
    flags.define("tile", None, "Height x width of tiles, as in 513x513 (default: whole images).")
    flags.define(
        "overlap", 0.25, "Fraction of a tile, on each side, used as context only; below 0.5."
    )
    crf = absl_flags.Flag(
        _NameParser(),
        absl_flags.ArgumentSerializer(),
        "crf",
        None,
        "Refine by a dense CRF; --crf=NAME takes another published set of parameters, "
        "--crf=FILE.json those of crf-search.",
        boolean=True,
    )
    absl_flags.DEFINE_flag(crf, flag_values=flags)


def parse_options(flags: Flags) -> "inference.InferenceOptions":
    """Returns the options that the flags ask for.

    Raises:
      DeepLabError: a value is illegal; says what is legal.
    """
    scales = parse_numbers(flags.scales, "scales", float)
    if not flags["overlap"].using_default_value and not flags.tile:
        raise DeepLabError("--overlap is of tiles; give --tile, too, as in --tile=513x513")
    is_file = flags.crf is not None and flags.crf.endswith(".json")
    return inference.InferenceOptions(
        output_stride=flags.output_stride,
        scales=scales,
        flip=flags.flip,
        tile=parse_size(flags.tile),
        overlap=flags.overlap,
        crf=inference.read_crf_parameters(flags.crf) if is_file else flags.crf,
    )


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


def parse_numbers(text: str | None, name: str, kind: type) -> tuple:
    """Returns the numbers of a flag such as 0.5,0.75,1; of None none.

    Raises:
      DeepLabError: the text is something else.
    """
    try:
        return tuple(kind(part) for part in (text.split(",") if text else ()))
    except ValueError:
        example = "0.5,0.75,1" if kind is float else "1,5,10"
        raise DeepLabError(
            f"--{name}={text} is not legal; give numbers with commas between, as in {example}"
        ) from None


OPENING, CLOSING = "([{", ")]}"
BOOLEANS = {"true": True, "false": False}


def parse_keywords(text: str, separator: str = ",") -> dict[str, Any]:
    """Returns the keywords with their values: Python literals, or else strings.

    Args:
      text: KEY=VALUE and so on; an empty text has none.
      separator: between keywords; within brackets it belongs to the value.

    Raises:
      DeepLabError: a part is no KEY=VALUE, a key comes twice, or brackets do not match.
    """
    keywords: dict[str, Any] = {}
    for part in _split(text, separator) if text.strip() else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise DeepLabError(
                f"{part.strip()!r} is not KEY=VALUE; tuples take brackets, as in "
                "atrous_rates=(12,24,36)"
            )
        if key in keywords:
            raise DeepLabError(f"{key} is given twice")
        keywords[key] = _literal(value)
    return keywords


def _split(text: str, separator: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in OPENING) - (letter in CLOSING)
        if depth < 0:
            break
        if letter == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth != 0:
        raise DeepLabError(f"the brackets of {text!r} do not match")
    return parts


def _literal(text: str) -> Any:
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


# Exit status of a process whose job failed in another process.
FAILED_ELSEWHERE = 3


def define_host_flags(flags: Flags) -> None:
    """Defines --coordinator, --num_processes, --process_id and --start_timeout."""
    flags.define(
        "coordinator", None, "host:port of process 0; TPU pods, SLURM and GKE are found without it."
    )
    flags.define(
        "num_processes", None, "Number of processes of the job, with --coordinator.", kind=int
    )
    flags.define("process_id", None, "Index of this process, 0 to --num_processes - 1.", kind=int)
    flags.define("start_timeout", 120, "Seconds to wait until all processes have started.", least=1)


class HostConsole(Reporter):
    """Prints the warnings of a process other than the first, with its index."""

    def __init__(self, console: Console, process: int) -> None:
        """Passes warnings on to a console."""
        self._console, self._process = console, process

    def warning(self, text: str) -> None:
        self._console.warning(f"process {self._process}: {text}")


@contextlib.contextmanager
def joined_job(flags: Flags, console: Console) -> Iterator[Reporter]:
    """Joins the processes of the job for the time of the block, which may be this one alone.

    Args:
      flags: of `define_host_flags`.
      console: of this process.

    Yields:
      The reporter for the work: the console in the first process, in others a `HostConsole`.

    Raises:
      DeepLabError: as `joined_hosts`.
    """
    # Imported late, so that --help and mistakes answer at once.
    import jax

    from deeplab_jax.parallel import Addresses, is_first_host, joined_hosts

    def end(message: str) -> None:
        console.error(message)
        leave(FAILED_ELSEWHERE)

    addresses = Addresses(flags.coordinator, flags.num_processes, flags.process_id)
    with joined_hosts(addresses, start_seconds=flags.start_timeout, end=end):
        yield console if is_first_host() else HostConsole(console, jax.process_index())


def leave(status: int) -> None:
    """Ends the process at once: at an ordinary end JAX would wait for the others of the job."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def in_a_job() -> bool:
    """Whether this process still belongs to a job of several."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
