"""The command `deeplab-jax COMMAND`: finds the command, parses its flags, reports errors."""

import importlib
import io
import itertools
import logging
import os
import re
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from absl import flags as absl_flags

from deeplab_jax.cli import compile_cache
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.entry import use_huge_pages
from deeplab_jax.cli.flags import Flags
from deeplab_jax.cli.job import in_a_job, leave
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.formats import RENAMED_FLAGS

# Commands and their purposes. Each command is a module of this package, with _ in place of -.
COMMANDS = {
    "models": "list architectures, backbones and pretrained weights",
    "prepare": "convert raw images and masks into a dataset",
    "train": "train a model or resume an interrupted run",
    "evaluate": "evaluate a model on a dataset split",
    "calibrate": "fit the temperature of a model's class probabilities",
    "crf-search": "search for the best dense CRF parameters of a model",
    "predict": "write masks and overlays for images and videos",
    "pseudo-label": "label images with a model, to train on few labels",
    "convert": "convert published weights into a model directory",
    "quantize": "quantize a model to 8-bit integers",
    "prune": "remove channels or weights of a model and fine-tune it",
    "distill": "train a small model to imitate a larger one",
    "push": "publish a model on the Hugging Face Hub",
    "export": "export a model to StableHLO, ONNX, TFLite, Core ML or a web page",
    "inspect": "show layers, parameters, multiply-adds and receptive field",
    "plan": "estimate memory, communication and step time on TPUs or GPUs, without the hardware",
    "benchmark": "measure speed and memory on this machine",
    "app": "serve a web page and an HTTP API for predictions",
    "demo": "train and evaluate a small model on built-in data",
}
USAGE_ERROR, INTERRUPTED = 2, 130
# Forms of --debug, in lower case. absl accepts these values of a boolean flag as true.
DEBUG = ("--debug", "--debug=true", "--debug=t", "--debug=1")
# Libraries that access buckets. Their errors are no OSErrors, for example gcsfs.retry.HttpError.
BUCKET_LIBRARIES = ("gcsfs.", "google.auth.", "s3fs.", "botocore.", "aiohttp.")
# Default at the end of the description of a flag.
STATED_DEFAULT = re.compile(r" \((default: [^()]*)\)\.$")


def overview() -> str:
    """Returns the text of `deeplab-jax --help`."""
    rows = "\n".join(f"  {name:<14}{purpose}" for name, purpose in COMMANDS.items())
    return f"""usage: deeplab-jax COMMAND [--flag=value …]

{rows}

Run COMMAND --help for its flags."""


def command_help(documentation: str, flag_values: Flags) -> str:
    """Returns the help of a command: `documentation`, then a list of its flags."""
    rows = [_flag_help(flag_values[name]) for name in flag_values]
    return "\n".join([documentation.strip(), "", "flags:", *rows])


def _flag_help(flag: absl_flags.Flag[Any]) -> str:
    """Returns the help lines of a flag: name, description, smallest legal value and default."""
    least = getattr(flag.parser, "lower_bound", None)
    facts = [] if least is None else [f"at least {least}"]
    if flag.default not in (None, [], ""):
        default = (flag.default_as_str or "").strip("'")
        facts.append(f"default: {default}")
    help_text = flag.help or ""
    stated = STATED_DEFAULT.search(help_text)
    if facts and stated:
        help_text, facts = f"{help_text[: stated.start()]}.", [*facts, stated[1]]
    noted = f" ({'; '.join(facts)})" if facts else ""
    text = " ".join(f"--{flag.name}: {help_text}{noted}".split())
    return textwrap.fill(
        text,
        98,
        initial_indent="  ",
        subsequent_indent="      ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def load_command(name: str) -> tuple[ModuleType, Flags]:
    """Returns the module of a command, and its flags before parsing.

    Raises:
      DeepLabError: there is no such command. The message suggests the most similar one.
    """
    check_name("command", name, COMMANDS)
    module = importlib.import_module(f"deeplab_jax.cli.{name.replace('-', '_')}")
    # absl declares no types for the constructor.
    flag_values = Flags()  # type: ignore[no-untyped-call]
    flag_values.define("debug", False, "Show the full traceback of an error.")
    compile_cache.define_flags(flag_values)
    module.define_flags(flag_values)
    return module, flag_values


def spell_out_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrites each argument `--config.FIELD=VALUE` to `--override=FIELD=VALUE`.

    This is required because absl cannot parse flags with arbitrary names. `--config.FIELD VALUE` is
    also accepted.
    """
    prefix, spelled = "--config.", []
    following = iter(arguments)
    for argument in following:
        if argument.startswith(prefix):
            assignment = argument.removeprefix(prefix)
            if "=" not in assignment:
                assignment = f"{assignment}={next(following, '')}"
            argument = f"--override={assignment}"
        spelled.append(argument)
    return spelled


def check_switches(arguments: Sequence[str], flag_values: Flags) -> None:
    """Checks that the value of each boolean flag, and of --crf, follows an equals sign.

    absl reads the value in `--ema false` as a path, and raises a ValueError for `--noema=false`.

    Raises:
      DeepLabError: a boolean flag is followed by `true` or `false`, --crf is followed by the name
        of CRF parameters or by a JSON file, or --noNAME has a value.
    """
    switches = {name for name in flag_values if flag_values[name].boolean}
    for argument, following in itertools.pairwise([*arguments, ""]):
        flag, equals, _ = argument.partition("=")
        if not flag.startswith("-"):
            continue
        name = flag.lstrip("-")
        is_value = following.lower() in ("true", "false")
        is_value = is_value or (name == "crf" and _is_value_of_crf(following))
        if name in switches and not equals and is_value:
            raise DeepLabError(
                f"the value of {flag} must follow an equals sign; give {flag}={following}"
            )
        positive = name.removeprefix("no")
        if equals and name not in flag_values and positive in switches:
            raise DeepLabError(f"{flag} takes no value; give {flag} alone, or --{positive}=VALUE")


def _is_value_of_crf(text: str) -> bool:
    """Returns whether an argument is a JSON file or, unless it is a path, a CRF parameter set."""
    from deeplab_jax.crf import PARAMETERS

    return text.endswith(".json") or (text in PARAMETERS and not os.path.exists(text))


def run(argv: Sequence[str], console: Console) -> int:
    """Runs one command and returns its exit status."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        console.print(overview())
        return 0 if argv else USAGE_ERROR
    name, arguments = argv[0], list(argv[1:])
    # --debug must take effect even if parsing the flags fails.
    debug = any(argument.lower() in DEBUG for argument in arguments)

    def work() -> None:
        module, flag_values = load_command(name)
        if "--help" in arguments or "-h" in arguments:
            console.print(command_help(module.__doc__ or "", flag_values))
            return
        try:
            # A command without a config must report `--config.FIELD` as the user typed it.
            spelled = spell_out_overrides(arguments) if "override" in flag_values else arguments
            check_switches(spelled, flag_values)
            paths = flag_values([name, *spelled])[1:]
        except absl_flags.UnrecognizedFlagError as error:
            new = RENAMED_FLAGS.get(error.flagname)
            if new is None or new not in flag_values:
                raise
            raise DeepLabError(
                f"unknown flag --{error.flagname}; it was renamed to --{new}"
            ) from None
        compile_cache.apply_flags(flag_values)
        module.run(flag_values, paths, console)

    return exit_status(work, console, debug)


def exit_status(
    work: Callable[[], None], console: Console, debug: bool, interrupted: str = "interrupted"
) -> int:
    """Runs a function and returns the exit status.

    An expected error is printed as one line. The following errors are expected:

    - `DeepLabError`,
    - a flag error of absl,
    - `OSError`,
    - an error of a library that reads and writes buckets, for example a missing permission.

    Args:
      work: function that parses the flags and runs the command.
      console: prints the error.
      debug: whether to raise an expected error instead of printing it.
      interrupted: message to print after Ctrl-C.

    Returns:
      0 without an error, 2 after an expected error, 130 after Ctrl-C. Other errors are raised.
    """
    try:
        work()
        return 0
    except KeyboardInterrupt:
        console.error(interrupted)
        return INTERRUPTED
    except Exception as error:
        of_bucket = type(error).__module__.startswith(BUCKET_LIBRARIES)
        expected = of_bucket or isinstance(error, DeepLabError | absl_flags.Error | OSError)
        if debug or not expected:
            raise
        text = f"the bucket cannot be used: {error}" if of_bucket else str(error)
        console.error(" ".join(text.split()))
        return USAGE_ERROR
    finally:
        # An error that is raised here must not leave the terminal without a cursor.
        console.close()


def prepare_environment() -> None:
    """Hides log lines and warnings of libraries, and sets the directories of the compile cache.

    It must run before TensorFlow and JAX are imported, because both read environment variables on
    import. Variables that the user has set are not changed. Characters that the encoding of stdout
    lacks are printed as `?`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Results contain characters, such as × and …, that not every encoding has.
        sys.stdout.reconfigure(errors="replace")
    # TensorFlow's log lines would hide error messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # This avoids TensorFlow's notice on oneDNN. TensorFlow is only used to read and write files.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.getLogger("absl").setLevel(logging.ERROR)
    # Pillow's warnings about damaged images do not contain the file name; errors here do.
    warnings.filterwarnings("ignore", module="PIL")
    compile_cache.set_defaults()


def run_process() -> None:
    """Runs the command that the arguments of this process state, and exits with its status."""
    prepare_environment()
    try:
        status = run(sys.argv[1:], Console())
    except BaseException:
        if not in_a_job():
            raise
        try:
            traceback.print_exc()
        finally:
            leave(1)
    if status and in_a_job():
        leave(status)
    sys.exit(status)


if __name__ == "__main__":
    use_huge_pages()
    run_process()
