"""Entry point of the commands `python -m experiments.NAME`: flags, errors and exit status."""

import sys
from collections.abc import Callable, Sequence

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.entry import use_huge_pages
from deeplab_jax.cli.flags import Flags
from deeplab_jax.cli.main import command_help, exit_status, prepare_environment

Define = Callable[[Flags], None]
Run = Callable[[Flags, list[str], Console], None]


def define_workdir(flags: Flags) -> None:
    """Defines the flag --workdir, the directory of training runs, results and reports."""
    flags.define("workdir", "runs/experiments", "Directory for training runs, results and reports.")


def refuse(flags: Flags, module: str, arguments: Sequence[str]) -> None:
    """Checks that the command line of `python -m MODULE` contains only flags.

    Raises:
      DeepLabError: an argument is not a flag.
    """
    flags.refuse(module, arguments, f"see python -m {module} --help")


def main(argv: Sequence[str], documentation: str, define: Define, run: Run) -> int:
    """Runs a command and returns its exit status.

    Args:
      argv: name of the command and its arguments.
      documentation: text that --help prints above the flags.
      define: function that defines the flags.
      run: function that runs the command.
    """
    console, flags = Console(), Flags()
    flags.define("debug", False, "Show the full traceback of an error.")
    define(flags)
    name, *arguments = argv
    debug = "--debug" in arguments

    def work() -> None:
        if "--help" in arguments or "-h" in arguments:
            console.print(command_help(documentation, flags))
            return
        paths = flags([name, *_joined(arguments)])[1:]
        run(flags, list(paths), console)

    return exit_status(work, console, debug, "interrupted; repeat the command to resume")


def start(module: str, documentation: str, define: Define, run: Run) -> None:
    """Runs a command with the arguments of this process, and exits with its status."""
    use_huge_pages()
    prepare_environment()
    sys.exit(main([module, *sys.argv[1:]], documentation, define, run))


def _joined(arguments: Sequence[str]) -> list[str]:
    """Joins each argument `--grid` with the next argument, its value: `--grid=VALUE`."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--grid":
            joined[-1] = f"--grid={argument}"
        else:
            joined.append(argument)
    return joined
