"""Files of training runs and results:

WORKDIR/PRESET/trainings/KEY/seed_N                workdir of a training run
WORKDIR/PRESET/trainings/KEY/seed_N.json           summary of a finished training run
WORKDIR/PRESET/results/KEY/seed_N/STRATEGY.json    metrics.json of an evaluation
WORKDIR/PRESET/tables/NAME.json                    `Request`: arguments of `experiments.run`

KEY is `ResolvedTraining.key`, and STRATEGY is `Case.strategy`.
"""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, is_local, write_text
from deeplab_jax.training.writers import read_rows
from experiments.cases import Case, ResolvedTraining


@dataclasses.dataclass(frozen=True)
class Request:
    """Arguments of `experiments.run`, stored so that reports on the table can be written later.

    Attributes:
      name: name of the report.
      table: name or path of the table.
      preset: name of the preset.
      grid: values of --grid, `FIELD=VALUE,VALUE`.
      seeds: number of training runs per row.
      init: value of --init, name or path of initial weights for the backbone; empty: not given.
      data_dir: directory of the prepared datasets.
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
    """Paths of the files of one preset, and methods that read and write them.

    Attributes:
      folder: the directory WORKDIR/PRESET.
    """

    folder: pathlib.Path

    def training(self, training: ResolvedTraining, seed: int) -> pathlib.Path:
        """Returns the path of the workdir of a training run."""
        return self.folder / "trainings" / training.key / f"seed_{seed}"

    def result(self, training: ResolvedTraining, seed: int, strategy: str) -> pathlib.Path:
        """Returns the path of the metrics of an evaluation; `strategy` is `Case.strategy`."""
        return self.folder / "results" / training.key / f"seed_{seed}" / f"{strategy}.json"

    def read_training(self, training: ResolvedTraining, seed: int) -> dict[str, Any] | None:
        """Returns the summary of a training run, or None if the run is not finished."""
        return read_json(self.training(training, seed).with_suffix(".json"))

    def write_training(self, training: ResolvedTraining, seed: int) -> None:
        """Writes the result of `training_summary` for a finished training run."""
        workdir = self.training(training, seed)
        write_json(workdir.with_suffix(".json"), training_summary(training, workdir))

    def read_result(self, case: Case, seed: int) -> dict[str, Any] | None:
        """Returns the metrics of a case for a seed, or None if they are not stored yet."""
        return read_json(self.result(case.training, seed, case.strategy))

    def write_request(self, request: Request) -> None:
        """Stores a request, so that reports can be written later."""
        path = self.folder / "tables" / f"{request.name}.json"
        write_json(path, dataclasses.asdict(request))

    def request_names(self) -> list[str]:
        """Returns the names of all stored requests for this preset."""
        return sorted(path.stem for path in self.folder.glob("tables/*.json"))

    def read_request(self, name: str) -> Request | None:
        """Returns the stored request with this name, or None if there is none."""
        values = read_json(self.folder / "tables" / f"{name}.json")
        return values and Request(**(values | {"grid": tuple(values["grid"])}))


def open_storage(workdir: str | pathlib.Path, preset: str) -> Storage:
    """Returns the storage of a preset; writes nothing.

    Args:
      workdir: directory of all training runs, results and reports. `~` at its start is replaced by
        the home directory.
      preset: name of the preset.

    Raises:
      DeepLabError: the workdir is in a bucket, such as gs://BUCKET/runs.
    """
    if not is_local(workdir):
        raise DeepLabError(
            f"--workdir={workdir} is in a bucket, in which processes cannot lock training runs; "
            "give a directory on this machine or on a shared file system"
        )
    return Storage(as_path(workdir) / preset)


def training_summary(training: ResolvedTraining, workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the summary of a training run, from its `metrics.jsonl` and `manifest.json`.

    Returns:
      Dictionary with the keys:

      * `steps`: number of training steps.
      * `seconds`: time of all training steps, without compilation, checkpoints and evaluation.
      * `images_per_second`: median throughput.
      * `started`, `commit`, `device_kind`, `devices`: description of the last start of the run.
      * `starts`: number of starts, which is above 1 if the run was resumed.
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
    """Returns the content of a JSON file, or None if there is no such file.

    Raises:
      DeepLabError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DeepLabError(
            f"{path} is not valid JSON ({error}); remove this file, and run the command again"
        ) from error


def write_json(path: pathlib.Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
