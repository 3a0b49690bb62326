"""Where trainings and their results lie, and how they are read.

WORKDIR/PRESET/trainings/KEY/seed_N          a run of deeplab_jax.train
WORKDIR/PRESET/trainings/KEY/seed_N.json     what it came to, when it is done
WORKDIR/PRESET/results/KEY/seed_N/STRATEGY.json    an evaluation: metrics.json
WORKDIR/PRESET/tables/NAME.json              which table was asked for, as `Request`
"""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text
from deeplab_jax.training.hooks import read_rows
from experiments.cases import Case, ResolvedTraining


@dataclasses.dataclass(frozen=True)
class Request:
    """A table as it was asked for; holds all that its report needs.

    Attributes:
      name: of its report's files.
      table: name or path.
      preset: its name.
      grid: `FIELD=VALUE,VALUE` texts.
      seeds: how many.
      init: weights that small networks start from.
      data_dir: where the datasets are.
    """

    name: str
    table: str
    preset: str
    grid: tuple[str, ...] = ()
    seeds: int = 1
    init: str = ""
    data_dir: str = "data"


@dataclasses.dataclass(frozen=True)
class Storage:
    """The files of one preset.

    Attributes:
      folder: WORKDIR/PRESET.
    """

    folder: pathlib.Path

    def training(self, training: ResolvedTraining, seed: int) -> pathlib.Path:
        """Returns the workdir of a run."""
        return self.folder / "trainings" / training.key / f"seed_{seed}"

    def result(self, training: ResolvedTraining, seed: int, strategy: str) -> pathlib.Path:
        """Returns the file of an evaluation."""
        return self.folder / "results" / training.key / f"seed_{seed}" / f"{strategy}.json"

    def read_training(self, training: ResolvedTraining, seed: int) -> dict[str, Any] | None:
        """Returns what a finished run came to; None before its end."""
        return read_json(self.training(training, seed).with_suffix(".json"))

    def write_training(self, training: ResolvedTraining, seed: int) -> None:
        """Notes that a run is finished, and how fast it went."""
        workdir = self.training(training, seed)
        write_json(workdir.with_suffix(".json"), training_summary(training, workdir))

    def read_result(self, case: Case, seed: int) -> dict[str, Any] | None:
        """Returns the metrics of a row and a seed; None before they are there."""
        return read_json(self.result(case.training, seed, case.strategy))

    def write_request(self, request: Request) -> None:
        """Notes what was asked for, so that reports can read it."""
        path = self.folder / "tables" / f"{request.name}.json"
        write_json(path, dataclasses.asdict(request))

    def requests(self) -> list[Request]:
        """Returns every table that was asked for."""
        found = (read_json(path) for path in sorted(self.folder.glob("tables/*.json")))
        return [Request(**(values | {"grid": tuple(values["grid"])})) for values in found]


def training_summary(training: ResolvedTraining, workdir: pathlib.Path) -> dict[str, Any]:
    """Returns steps, seconds and speed of a run, from its own numbers.

    Seconds are of the steps: without compiling, reading checkpoints and evaluating.
    """
    rows = [row for row in read_rows(workdir) if "images_per_second" in row]
    batch, done, seconds = training.config.training.batch_size, 0, 0.0
    for row in rows:
        seconds += (row["step"] - done) * batch / row["images_per_second"]
        done = row["step"]
    speeds = [row["images_per_second"] for row in rows]
    return {
        "steps": int(done),
        "seconds": seconds,
        "images_per_second": statistics.median(speeds) if speeds else None,
        **_last_start(workdir),
    }


def _last_start(workdir: pathlib.Path) -> dict[str, Any]:
    starts = read_json(workdir / "manifest.json") or [{}]
    kept = ("started", "commit", "device_kind", "devices")
    return {name: starts[-1].get(name) for name in kept} | {"starts": len(starts)}


def read_json(path: pathlib.Path) -> Any:
    """Returns a file's content; None if there is no such file.

    Raises:
      DeepLabError: it is no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DeepLabError(f"{path} cannot be read ({error}); remove it to run again") from error


def write_json(path: pathlib.Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes a file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
