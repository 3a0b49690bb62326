"""Runs the measurements of one part of the suite, and stores their results in a file.

If a run is interrupted, the next run of the part continues with the remaining measurements.
"""

import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deeplab_jax.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A measurement of the suite.

    Attributes:
      settings: JSON-serializable description, unique among the measurements of a part of the
        suite.
      run: function that measures and returns JSON-serializable figures. It raises DeepLabError if
        this machine does not have the software or data that the measurement requires.
    """

    settings: Mapping[str, Any]
    run: Callable[[], Mapping[str, Any]]

    @property
    def key(self) -> str:
        """The settings as JSON text, which identifies the measurement."""
        return json.dumps(self.settings, sort_keys=True)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a row as one line of JSON and flushes it to disk."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file, and removes an incomplete last line from it."""
    if not path.exists():
        return []
    text = path.read_text()
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text)
    return [json.loads(line) for line in text.splitlines()]


def pending(measurements: Sequence[Measurement], path: Path) -> list[Measurement]:
    """Returns the measurements for which the file `path` contains no figures.

    Measurements without rows in the file come first. Those that failed, were skipped or never ended
    come last.
    """
    status: dict[str, str] = {}
    for row in read(path):
        status[json.dumps(row["settings"], sort_keys=True)] = row["status"]
    left = [one for one in measurements if status.get(one.key) != "measured"]
    return sorted(left, key=lambda one: one.key in status)


def run_part(
    path: Path, measurements: Sequence[Measurement], machine: Mapping[str, Any], deadline: float
) -> None:
    """Runs pending measurements until the deadline, and appends their results to the file.

    Each measurement adds two rows: one before it starts, so that the file also lists a measurement
    that never ended, and one after it. A row is a dictionary with the keys:

    * `settings`, `machine`: settings of the measurement, and the argument `machine`.
    * `status`: `started` before the measurement; `measured`, `skipped` or `failed` after it.
    * `seconds_in_all`: duration of the measurement; only in the second row.
    * `figures`: result of the measurement; only with the status `measured`.
    * `reason`: error message; only with the status `skipped` or `failed`.

    Args:
      path: file of the rows; its directory is created if it does not exist.
      measurements: measurements of the part, the most important first.
      machine: description of the machine.
      deadline: time in seconds of `time.time()` after which no measurement starts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for one in pending(measurements, path):
        if time.time() > deadline:
            print(
                "time limit reached; to resume, repeat the command with the same --output",
                flush=True,
            )
            return
        base = {"settings": one.settings, "machine": machine}
        append(path, base | {"status": "started"})
        started = time.time()
        row = base | _attempt(one) | {"seconds_in_all": time.time() - started}
        append(path, row)
        print(json.dumps({name: row[name] for name in row if name != "machine"}), flush=True)


def _attempt(measurement: Measurement) -> dict[str, Any]:
    try:
        return {"status": "measured", "figures": measurement.run()}
    except DeepLabError as error:
        return {"status": "skipped", "reason": str(error)}
    except Exception as error:  # The remaining measurements still run.
        traceback.print_exc()
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:2000]}
