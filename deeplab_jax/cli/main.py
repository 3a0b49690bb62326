"""`deeplab-jax COMMAND`: finds the command, parses its flags, turns errors into one line."""

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType

from absl import flags as absl_flags

from deeplab_jax.cli import compile_cache
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, in_a_job, leave
from deeplab_jax.errors import DeepLabError, unknown_name

# The module of the same name in this package (with _ for -), and what it is for.
COMMANDS = {
    "models": "architectures and pretrained weights, a line each",
    "prepare": "turn raw images and masks into a data set",
    "train": "train, or go on with an interrupted run",
    "evaluate": "mean IoU and its company on a split",
    "crf-search": "parameters of the dense CRF that suit a model",
    "predict": "masks and overlays for images",
    "convert": "published weights into a model directory",
    "quantize": "a model in 8-bit integers, a quarter of the size",
    "prune": "a model with fewer channels or weights, trained on",
    "distill": "train a network on what a larger one says",
    "export": "a model for another runtime: StableHLO, ONNX, TFLite",
    "inspect": "parameters, multiply-adds and receptive field of a network",
    "plan": "memory, communication and time of training on TPUs that are not here",
    "benchmark": "measure the parts of this code on this machine",
    "app": "a page to drop images on, and the same over HTTP",
    "demo": "the main job on built-in data: train, evaluate, pictures",
}
USAGE_ERROR, INTERRUPTED = 2, 130
# At most so much of compiled programs is kept.
COMPILED_BYTES = 4 * 2**30


def overview() -> str:
    """Returns what `deeplab-jax --help` prints."""
    rows = [f"  {name:<12}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        ["usage: deeplab-jax COMMAND [--flag=value …]", "", *rows, "", "COMMAND --help says more."]
    )


def command_help(documentation: str, flag_values: Flags) -> str:
    """Returns a command's documentation followed by its flags."""
    flags = [flag_values[name] for name in flag_values]
    rows = [f"  --{flag.name}: {flag.help} (default: {flag.default_as_str})" for flag in flags]
    return "\n".join([documentation.strip(), "", "flags:", *rows])


def load_command(name: str) -> tuple[ModuleType, Flags]:
    """Returns the command's module and its flags, not parsed yet.

    Raises:
      DeepLabError: there is no such command; names the nearest.
    """
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    module = importlib.import_module(f"deeplab_jax.cli.{name.replace('-', '_')}")
    flag_values = Flags()
    flag_values.define("debug", False, "Show the traceback of an error.")
    compile_cache.define_flags(flag_values)
    module.define_flags(flag_values)
    return module, flag_values


def spell_out_overrides(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with each `--config.FIELD=VALUE` written as `--override=FIELD=VALUE`.

    absl knows no flags whose names are open; `--config.FIELD VALUE` is understood too.
    """
    prefix, spelled, waiting = "--config.", [], None
    for argument in arguments:
        if waiting is not None:
            spelled.append(f"--override={waiting}={argument}")
            waiting = None
        elif argument.startswith(prefix) and "=" not in argument:
            waiting = argument.removeprefix(prefix)
        else:
            is_override = argument.startswith(prefix)
            spelled.append(
                f"--override={argument.removeprefix(prefix)}" if is_override else argument
            )
    return spelled if waiting is None else [*spelled, f"--override={waiting}="]


def run(argv: Sequence[str], console: Console) -> int:
    """Runs one command and returns its exit status."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        console.print(overview())
        return 0 if argv else USAGE_ERROR
    name, arguments = argv[0], list(argv[1:])
    # Looked up here because parsing the flags may be what fails.
    debug = any(argument in ("--debug", "--debug=true") for argument in arguments)

    def work() -> None:
        module, flag_values = load_command(name)
        if "--help" in arguments or "-h" in arguments:
            console.print(command_help(module.__doc__, flag_values))
            return
        paths = flag_values([name, *spell_out_overrides(arguments)])[1:]
        compile_cache.apply_flags(flag_values)
        module.run(flag_values, paths, console)

    return exit_status(work, console, debug)


def exit_status(
    work: Callable[[], None], console: Console, debug: bool, interrupted: str = "interrupted"
) -> int:
    """Does the work and returns the exit status; errors of the user's become one line.

    Args:
      work: what the command does, flags included.
      console: prints the line.
      debug: raise such errors instead.
      interrupted: what Ctrl-C says.
    """
    try:
        work()
        return 0
    except KeyboardInterrupt:
        console.error(interrupted)
        return INTERRUPTED
    except (DeepLabError, absl_flags.Error, OSError) as error:
        if debug:
            raise
        console.error(" ".join(str(error).split()))
        return USAGE_ERROR


def prepare_environment() -> None:
    """Sets what the libraries below read on import; the user's own values win."""
    # Their log lines would drown the one line that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow announces it on stderr, whatever the level; it only reads files here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.getLogger("absl").setLevel(logging.ERROR)
    # Of damaged images, whose files it does not name; ours do.
    warnings.filterwarnings("ignore", module="PIL")
    # A program compiled once need not be compiled again by the next command.
    compile_cache.set_defaults(COMPILED_BYTES)


def console_script() -> None:
    """Entry point of the installed `deeplab-jax`."""
    prepare_environment()
    try:
        status = run(sys.argv[1:], Console())
    except BaseException:
        if not in_a_job():
            raise
        traceback.print_exc()
        status = 1
    if status and in_a_job():
        leave(status)
    sys.exit(status)


if __name__ == "__main__":
    console_script()
