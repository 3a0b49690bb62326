"""The fault suite: `make faults`, or python tests/faults/run.py [--kills=100] [--only=kills].

PYTHONPATH must name tests/helpers.

Breaks real runs in the ways that machines break them, counts what came of it, and ends with status
1 where anything went wrong. docs/guides/faults.md has the numbers of one such run.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bucket_server import BUCKET, bucket_server
from disks import damage_files, full_disk
from goodput_run import goodput_of_killed_run
from goodput_run import rows as goodput_rows
from hostile_images import spoilt_images
from kills import kill_in_bucket, kill_runs
from processes import process_faults
from stops import stop_run
from tiny_run import TinyRuns

from deeplab_jax.files import as_path

# In this order: what is forked must come before what uses JAX's devices in this process.
PARTS = ("kills", "sigterm", "disk", "processes", "files", "images", "bucket", "goodput")
# Parts that run only if --only names them, because they take hours.
LONG_PARTS = ("goodput",)
BUCKET_KILLS, GOODPUT_KILLS = 30, 20
Row = tuple[str, object]


def main() -> int:
    """Runs the parts asked for and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, help="Where to work; default: a new one.")
    parser.add_argument("--only", help="Parts, separated by commas; default: all but goodput.")
    parser.add_argument("--goodput_steps", type=int, default=25_000, help="About an hour.")
    parser.add_argument("--fresh", action="store_true", help="Start each process anew.")
    options = parser.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="faults."))
    runs = TinyRuns.prepare(folder.absolute(), forked=not options.fresh)
    started, failures = time.monotonic(), 0
    quick = [part for part in PARTS if part not in LONG_PARTS]
    chosen = options.only.split(",") if options.only else quick
    for part in [part for part in PARTS if part in chosen]:
        for (name, value), wrong in run_part(part, runs, options):
            say(f"{name:<56} {value}{'   WRONG' if wrong else ''}")
            failures += wrong
    say(f"{'minutes':<56} {(time.monotonic() - started) / 60:.1f}")
    return int(failures > 0)


def run_part(part: str, runs: TinyRuns, options: argparse.Namespace) -> Iterator[tuple[Row, bool]]:
    """Yields the rows of a part's table, and whether each says that something went wrong."""
    undisturbed = runs.folder / "undisturbed"
    if part in ("sigterm", "disk", "files"):
        runs.finish(runs.start(*runs.train_words(undisturbed)))
    if part == "kills":
        tally = kill_runs(runs, options.kills, options.seed, say)
        yield from unless_zero(tally.rows(), tally.failures)
    elif part == "bucket":
        with bucket_server() as environment:
            os.environ.update(environment)
            place = as_path(f"gs://{BUCKET}")
            tally = kill_in_bucket(TinyRuns(runs.folder), place, BUCKET_KILLS, options.seed, say)
        rows = [(f"bucket: {name}", value) for name, value in tally.rows()]
        yield from unless_zero(rows, tally.failures)
    elif part == "goodput":
        found = goodput_of_killed_run(
            TinyRuns(runs.folder), options.goodput_steps, GOODPUT_KILLS, options.seed, say
        )
        yield from goodput_rows(*found)
    elif part == "sigterm":
        stops = stop_run(runs, undisturbed, 8, options.seed, say)
        yield from unless_zero(stops.rows(), stops.lost + len(stops.wrong))
    elif part == "disk":
        for name, value in full_disk(runs, undisturbed):
            yield (name, value), value not in (True, 2)
    elif part == "processes":
        for end in process_faults(TinyRuns(runs.folder), say):
            seconds = "did not end" if end.seconds is None else f"{end.seconds:.0f} s"
            yield (end.fault, f"{seconds}: {end.message}"), not end.good
    elif part == "files":
        damages = damage_files(runs, undisturbed, options.seed)
        yield from unless_zero(damages.rows(), len(damages.missed))
    else:
        images = spoilt_images(runs.folder, options.images, options.seed, say)
        yield from unless_zero(images.rows(), len(images.wrong))


def unless_zero(rows: list[Row], failures: int) -> Iterator[tuple[Row, bool]]:
    """Yields rows of which the last is marked where there are failures."""
    for row in rows[:-1]:
        yield row, False
    yield rows[-1], failures > 0


def say(text: str) -> None:
    """Prints a line at once."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
