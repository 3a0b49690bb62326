"""Measures on the GPU at hand, or at toy size anywhere; see the package and docs/benchmarks.md.

    python -m experiments.gpu_suite --part=a,b --output=DIR [--toy] [--camvid=DIR]
    python -m experiments.gpu_suite --wheels

a  v3 ResNet-101 training beside torchvision under torch.compile: time, MFU, memory, profile
b  gradients of atrous kernels and depthwise convolutions, each implementation alone
c  v3+ training beside segmentation_models
d  forward passes, batch 16 and 1, bfloat16 and float32, folded
e  the input pipeline
f  CamVid, the full recipe
"""

import argparse
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
# From the request to stop, upon which a training writes its state, to the end by force.
GRACE = 20


def main() -> int:
    """Runs the chosen parts and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", default=PARTS, help="letters, as in a,b; default: all")
    parser.add_argument("--output", type=Path, help="directory of the rows, one file a part")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, for any machine")
    parser.add_argument("--camvid", type=Path, help="f: source folder of CamVid")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="bound of each part")
    parser.add_argument("--wheels", action="store_true", help="print what is not installed")
    arguments = parser.parse_args()
    if arguments.wheels:
        print("\n".join(missing_packages()))
        return 0
    parts = arguments.part.replace(",", "")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        parser.error(f"--part={arguments.part}: unknown {unknown}; legal: {', '.join(PARTS)}")
    if arguments.output is None:
        parser.error("--output=DIR is needed")
    arguments.output.mkdir(parents=True, exist_ok=True)
    codes = [bounded(part, arguments) for part in parts]
    return 0 if not any(codes) else 1


def bounded(part: str, arguments: argparse.Namespace) -> int:
    """Runs a part in a process of its own, which ends with its time, and returns its exit status.

    A compilation that takes too long cannot be stopped otherwise, and memory is free afterwards.
    """
    deadline = time.time() + arguments.seconds
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run, args=(part, arguments, deadline - GRACE))
    process.start()
    process.join(max(0.0, deadline - GRACE - time.time()))
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.is_alive():
            print(f"part {part}: the time is up", flush=True)
            _signal_group(process.pid, number)
            process.join(GRACE)
    return process.exitcode


def _signal_group(leader: int, number: signal.Signals) -> None:
    """Sends a signal to a part's process and to what it started."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:  # Not a group yet, or ended meanwhile.
        os.kill(leader, number)


if __name__ == "__main__":
    sys.exit(main())
