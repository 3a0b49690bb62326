"""Runs the benchmark suite on a GPU, or with --toy at tiny sizes on any machine.

    python -m experiments.gpu_suite --part=a,b --output=DIR [--toy] [--camvid=DIR]
    python -m experiments.gpu_suite --wheels

--wheels prints the required packages that are not installed, and exits. The parts are:

a  training step of v3 ResNet-101 against torchvision with torch.compile: time, MFU, memory, profile
b  gradients of atrous kernels, and depthwise convolutions: each implementation alone
c  training step of v3+ against segmentation_models_pytorch
d  forward passes with folded batch normalization: batch sizes 16 and 1, bfloat16 and float32
e  input pipeline
f  training on CamVid with the full recipe; --camvid is the directory of its raw files
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from experiments.gpu_suite.parts import run
from experiments.gpu_suite.wheels import missing_packages

PARTS = "abcdef"
SECONDS = 480
# Seconds between SIGTERM, at which a training run saves its state, and SIGKILL.
GRACE = 20


def main() -> int:
    """Runs the chosen parts and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--part", default=PARTS, help="letters of parts, separated by commas (default: all)"
    )
    parser.add_argument("--output", type=path, help="directory for results, one file per part")
    parser.add_argument("--toy", action="store_true", help="use tiny sizes, for any machine")
    parser.add_argument("--camvid", type=path, help="part f: source directory of CamVid")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="time limit per part, in seconds (default: %(default)s)",
    )
    parser.add_argument("--wheels", action="store_true", help="print missing packages and exit")
    arguments = parser.parse_args()
    if arguments.wheels:
        print("\n".join(missing_packages()))
        return 0
    parts = arguments.part.replace(",", "")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        parser.error(f"--part={arguments.part} must be letters of parts; legal: {', '.join(PARTS)}")
    if arguments.output is None:
        parser.error("--output=DIR must be given")
    arguments.output.mkdir(parents=True, exist_ok=True)
    codes = [bounded(part, arguments) for part in parts]
    return 0 if not any(codes) else 1


def path(text: str) -> Path:
    """Converts the value of a flag to a path."""
    # Imported here, because --wheels must not require any package.
    from deeplab_jax.files import as_path

    return as_path(text)


def bounded(part: str, arguments: argparse.Namespace) -> int:
    """Runs a part in a separate process with a time limit, and returns its exit status.

    A long compilation can be stopped only by ending its process. This also frees all its memory.

    Args:
      part: letter of the part.
      arguments: parsed command line.
    """
    deadline = time.time() + arguments.seconds
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run, args=(part, arguments, deadline - GRACE))
    process.start()
    process.join(max(0.0, deadline - GRACE - time.time()))
    if process.is_alive():
        print(f"part {part}: time limit reached", flush=True)
        end_group(process)
    return process.exitcode


def end_group(leader: multiprocessing.process.BaseProcess) -> None:
    """Ends the process that runs a part of the suite, and its child processes.

    A training run is a child process, which saves its state after the leader has ended.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(leader.pid, number)
        end = time.time() + GRACE
        while (running := leader.is_alive() or _signal_group(leader.pid, 0)) and time.time() < end:
            time.sleep(0.1)
        if not running:
            return


def _signal_group(leader: int, number: int) -> bool:
    """Sends a signal to a process and its child processes; returns whether one of them exists."""
    for send in (os.killpg, os.kill):
        # The process is not the leader of a group yet, or has ended.
        with contextlib.suppress(ProcessLookupError):
            send(leader, number)
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
