"""Flags that several commands share."""

import ast
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

if TYPE_CHECKING:
    from deeplab_jax.inference import ImageClassification, InferenceOptions, Predictor
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


def define_dataset_flags(
    flags: absl_flags.FlagValues, split: str, limit: int | None = None
) -> None:
    """Defines --dataset, --split, --data_dir, --size, --limit, --batch_size and --workers.

    Args:
      flags: of the command.
      split, limit: defaults of the flags.
    """
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("dataset", None, "Name of a prepared data set.", **own)
    absl_flags.DEFINE_string("split", split, "Split of the data set.", **own)
    absl_flags.DEFINE_string("data_dir", None, "Directory of the prepared data sets.", **own)
    absl_flags.DEFINE_string(
        "size", None, "Height x width that images are padded to, as in 513x513.", **own
    )
    count = {"lower_bound": 1, "flag_values": flags}
    absl_flags.DEFINE_integer("limit", limit, "Only the first so many images.", **count)
    absl_flags.DEFINE_integer("batch_size", 8, "Images at a time, over all devices.", **count)
    absl_flags.DEFINE_integer("workers", 0, "Processes that read ahead.", lower_bound=0, **own)


class _NameParser(absl_flags.ArgumentParser):
    """Reads --crf, --crf=NAME and --nocrf; absl says `true` and `false` where no value is given."""

    syntactic_help = "a name, or nothing for the default"

    def parse(self, argument: str | None) -> str | None:
        return {"true": "default", "false": None}.get(argument, argument)


def define_inference_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --output_stride, --scales, --flip, --tile, --overlap and --crf."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_integer(
        "output_stride", None, "Of the encoder's map (default: as trained).", **own
    )
    absl_flags.DEFINE_string(
        "scales", "1", "Sizes of the image whose results are fused, as in 0.5,0.75,1.", **own
    )
    absl_flags.DEFINE_bool("flip", False, "Fuse the mirrored image's result, too.", **own)
    absl_flags.DEFINE_string(
        "tile", None, "Height x width of tiles, as in 513x513 (default: whole images).", **own
    )
    absl_flags.DEFINE_float(
        "overlap",
        0.25,
        "Share of a tile, on each side, that only serves as surroundings; below 0.5.",
        **own,
    )
    help_text = (
        "Refine by a dense CRF; --crf=NAME takes another published set of parameters, "
        "--crf=FILE.json those of crf-search."
    )
    absl_flags.DEFINE_flag(
        absl_flags.Flag(
            _NameParser(),
            absl_flags.ArgumentSerializer(),
            "crf",
            None,
            help_text,
            boolean=True,
        ),
        **own,
    )


def parse_options(flags: absl_flags.FlagValues) -> "InferenceOptions":
    """Returns the options that the flags ask for.

    Raises:
      DeepLabError: a value is illegal; says what is legal.
    """
    scales = parse_numbers(flags.scales, "scales", float)
    if not flags["overlap"].using_default_value and not flags.tile:
        raise DeepLabError("--overlap is of tiles; give --tile, too, as in --tile=513x513")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.inference import InferenceOptions, read_crf_parameters

    is_file = flags.crf is not None and flags.crf.endswith(".json")
    return InferenceOptions(
        output_stride=flags.output_stride,
        scales=scales,
        flip=flags.flip,
        tile=parse_size(flags.tile),
        overlap=flags.overlap,
        crf=read_crf_parameters(flags.crf) if is_file else flags.crf,
    )


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


FAILED_ELSEWHERE = 3


def define_host_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --coordinator, --num_processes, --process_id and --start_timeout."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "coordinator",
        None,
        "host:port of process 0; TPU pods, SLURM and GKE are found without it.",
        **own,
    )
    absl_flags.DEFINE_integer("num_processes", None, "Of the job, with --coordinator.", **own)
    absl_flags.DEFINE_integer("process_id", None, "0 to --num_processes - 1.", **own)
    absl_flags.DEFINE_integer(
        "start_timeout", 120, "Seconds to wait for all processes.", lower_bound=1, **own
    )


class HostConsole(Reporter):
    """What a process other than the first shows: warnings, with its number."""

    def __init__(self, console: Console, process: int) -> None:
        """Passes warnings on to a console."""
        self._console, self._process = console, process

    def warning(self, text: str) -> None:
        self._console.warning(f"process {self._process}: {text}")


@contextlib.contextmanager
def joined_job(flags: absl_flags.FlagValues, console: Console) -> Iterator[Reporter]:
    """Joins the processes of the job for the time of the block, which may be this one alone.

    Args:
      flags: of `define_host_flags`.
      console: of this process.

    Yields:
      Whom work is to report to: the console in the first process, elsewhere one that keeps silent
      but for warnings.

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
