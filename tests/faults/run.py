"""The fault suite: `make faults`, or python tests/faults/run.py [--kills=100] [--only=kills,…].

Breaks real runs in the ways that machines break them, counts what came of it, and ends with status
1 where anything went wrong. docs/faults.md has the numbers of one such run.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kills import kill_runs
from tiny_run import TinyRuns


def main() -> int:
    """Runs the parts asked for and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--fresh", action="store_true", help="Start each process anew.")
    options = parser.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="faults."))
    runs = TinyRuns.prepare(folder.absolute(), forked=not options.fresh)
    started = time.monotonic()
    tally = kill_runs(runs, options.kills, options.seed, say)
    for name, value in tally.rows():
        print(f"{name:<50} {value}")
    print(f"{'minutes':<50} {(time.monotonic() - started) / 60:.1f}")
    return int(tally.failures > 0)


def say(text: str) -> None:
    """Prints a line at once."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
