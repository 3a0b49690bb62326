"""Files of measurements that the docs show as tables: experiments/results/measured/NAME.csv."""

import csv
import datetime
import importlib.metadata
import io
import pathlib
import subprocess
from collections.abc import Iterable, Sequence

from deeplab_jax.files import write_text

MEASURED = pathlib.Path(__file__).parent / "results" / "measured"
COLUMNS = ("row", "quantity", "value", "unit", "command", "commit", "hardware", "date")


def origin(hardware: str) -> dict[str, str]:
    """Returns the columns `commit`, `hardware` and `date` of measurements that are made now."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    today = datetime.date.today().isoformat()
    return {"commit": commit, "hardware": hardware, "date": today}


def processor(packages: Sequence[str]) -> str:
    """Returns processor, cores, Python version and the versions of packages, for `hardware`."""
    # The import is local, because it imports JAX, whose platform some callers set first.
    from deeplab_jax.benchmark.machine import describe_machine

    machine = describe_machine()
    name = " ".join(str(machine["processor"]).split()[:2])
    versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    python = f"Python {machine['python'].rpartition('.')[0]}"
    return ", ".join([f"{name}, {machine['cores']} cores", python, *versions])


def write(path: pathlib.Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a file of measurements; each row has one value for each of `COLUMNS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    write_text(path, text.getvalue())
