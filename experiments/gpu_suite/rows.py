"""Measurements of a part, and the file of rows that lets a second call go on."""

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
    """One thing to measure.

    Attributes:
      settings: what is measured, JSON-ready; they identify it among the rows of its part.
      run: measures it and returns its figures, JSON-ready. A DeepLabError means that something is
        missing on this machine.
    """

    settings: Mapping[str, Any]
    run: Callable[[], Mapping[str, Any]]

    @property
    def key(self) -> str:
        """The settings as text."""
        return json.dumps(self.settings, sort_keys=True)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a row as one line of JSON and waits until it is on disk."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file; a line that a cut left unfinished is removed from it."""
    if not path.exists():
        return []
    text = path.read_text()
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text)
    return [json.loads(line) for line in text.splitlines()]


def pending(measurements: Sequence[Measurement], path: Path) -> list[Measurement]:
    """Returns what has not been measured; what was tried before comes last."""
    status: dict[str, str] = {}
    for row in read(path):
        status[json.dumps(row["settings"], sort_keys=True)] = row["status"]
    left = [one for one in measurements if status.get(one.key) != "measured"]
    return sorted(left, key=lambda one: one.key in status)


def run_part(
    path: Path, measurements: Sequence[Measurement], machine: Mapping[str, Any], deadline: float
) -> None:
    """Measures what the file lacks until the deadline; prints and appends a row after each.

    A row has `settings`, `status` (started, measured, skipped, failed), `figures` or `reason`, and
    `machine`. `started` is written first, so that a measurement that does not end is known.

    Args:
      path: of the rows.
      measurements: the most valuable first.
      machine: what the rows are measured on.
      deadline: of `time.time()`; no measurement starts after it.
    """
    for one in pending(measurements, path):
        if time.time() > deadline:
            print("The time is up; a second call with the same --output goes on.", flush=True)
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
    except Exception as error:  # A failure on one card must not end the other measurements.
        traceback.print_exc()
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:2000]}
