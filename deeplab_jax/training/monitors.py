"""Where the numbers of a run go: `metrics.jsonl` and TensorBoard event files."""

import contextlib
import json
import pathlib
from collections.abc import Mapping
from types import TracebackType

import tensorboardX

from deeplab_jax.files import is_local, write_text

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Monitor:
    """Writes rows of scalars; a context manager that closes its files.

    Into a bucket it writes `metrics.jsonl` alone.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int) -> None:
        """Opens the files; rows after `start_step`, of an interrupted run, are taken out."""
        self._path, self._is_local = workdir / METRICS_FILE, is_local(workdir)
        kept = [row for row in read_rows(workdir) if row["step"] <= start_step]
        self._text = "".join(json.dumps(row) + "\n" for row in kept)
        write_text(self._path, self._text)
        if self._is_local:
            self._rows = self._path.open("a", buffering=1)
            self._events = tensorboardX.SummaryWriter(
                str(workdir / TENSORBOARD), purge_step=start_step + 1
            )

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_local:
            self._rows.close()
            self._events.close()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a row of scalars for a step."""
        row = json.dumps({"step": step, **scalars}) + "\n"
        if not self._is_local:
            # Nothing can be added to an object in a bucket.
            self._text += row
            self._path.write_text(self._text)
            return
        self._rows.write(row)
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


class NoMonitor(contextlib.AbstractContextManager):
    """The monitor of a process that writes nothing, as another does."""

    def __init__(self, workdir: pathlib.Path, start_step: int) -> None:
        """Opens nothing."""

    def __exit__(self, *error: object) -> None:
        """Closes nothing."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Keeps silent."""


def read_rows(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Returns the rows written so far; a last line that a kill cut short is left out."""
    path = workdir / METRICS_FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
