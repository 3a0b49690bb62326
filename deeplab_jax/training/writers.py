"""Writers of metrics: JSON lines, TensorBoard, Weights & Biases and MLflow."""

import contextlib
import functools
import json
import logging
import os
import pathlib
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import tensorboardX

from deeplab_jax.files import is_local, write_text
from deeplab_jax.lazy import import_extra
from deeplab_jax.reporter import Reporter

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
# Identifiers of the run in Weights & Biases and MLflow, by which a resumed run continues there.
TRACKERS_FILE = "trackers.json"
_REMEMBERING = threading.Lock()
# Name of the project in Weights & Biases, and of the experiment in MLflow, unless an environment
# variable sets another name.
PROJECT = "deeplab_jax"
# Seconds between two writes of a file of rows into a bucket.
BUCKET_SECONDS = 15.0
# Maximum number of seconds that a run waits at its end until a tracker has received all rows.
CLOSE_SECONDS = 60.0


class RowFile:
    """File of JSON objects, one per line, to which rows are appended.

    The file is on this machine or in a bucket. Nothing can be appended to a file in a bucket.
    There, a thread therefore replaces the whole file every 15 s if rows were added.
    """

    def __init__(self, path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the content of the file by the given rows, and opens it."""
        self._path, self._is_local = path, is_local(path)
        self._text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(path, self._text)
        if self._is_local:
            self._file = path.open("a", buffering=1)
            return
        self._stored = len(self._text)
        self._done, self._storing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._store_often, name=path.name, daemon=True)
        self._thread.start()

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        line = json.dumps(row) + "\n"
        if self._is_local:
            self._file.write(line)
        else:
            self._text += line

    def flush(self) -> None:
        """Uploads all rows written so far, if the file is in a bucket.

        This method must be called before a checkpoint is saved. Otherwise, a run that resumes from
        the checkpoint may lack the last rows.
        """
        if self._is_local:
            return
        with self._storing:
            text = self._text
            if len(text) > self._stored:
                self._path.write_text(text)
                self._stored = len(text)

    def _store_often(self) -> None:
        while not self._done.wait(BUCKET_SECONDS):
            # If a bucket cannot be reached for some time, the run continues. Not all errors of its
            # library are OSErrors, for example HttpError of gcsfs.
            with contextlib.suppress(Exception):
                self.flush()

    def close(self, failed: bool = False) -> None:
        """Uploads the remaining rows if the file is in a bucket, and closes the file.

        Args:
          failed: whether the run failed. If so, errors of the upload are not raised.
        """
        if self._is_local:
            self._file.close()
            return
        self._done.set()
        self._thread.join()
        with contextlib.suppress(Exception) if failed else contextlib.nullcontext():
            self.flush()


def read_row_file(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON objects, without an incomplete last line."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def read_rows(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Returns the rows of `metrics.jsonl`, without an incomplete last line."""
    return read_row_file(workdir / METRICS_FILE)


class Writer(Protocol):
    """Interface of the writers for TensorBoard, Weights & Biases and MLflow."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""

    def close(self, failed: bool) -> None:
        """Closes the writer; `failed` is True if an error or a signal ended the run."""


class TensorBoard:
    """Writer of TensorBoard event files in `workdir/tensorboard`."""

    def __init__(self, workdir: pathlib.Path, start_step: int) -> None:
        """Opens an event file.

        If the run is resumed, older event files can contain events for steps after `start_step`.
        The new file sets `purge_step`, and TensorBoard therefore hides these events.

        Args:
          workdir: directory of the run.
          start_step: step from which the run starts or resumes.
        """
        folder = str(workdir / TENSORBOARD)
        self._events = tensorboardX.SummaryWriter(folder, purge_step=start_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one event per scalar."""
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self, failed: bool) -> None:
        """Closes the event file."""
        self._events.close()


class WandB:
    """Writer of metrics to a run in Weights & Biases.

    The environment variables of the package wandb apply, such as WANDB_PROJECT, WANDB_ENTITY and
    WANDB_MODE=offline.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
        """Starts a run, or continues the run of the workdir."""
        wandb = import_extra("wandb", "wandb", "the metrics writer wandb")
        identifier = _tracked(workdir, "wandb") or uuid.uuid4().hex[:8]
        folder = workdir if is_local(workdir) else pathlib.Path(tempfile.mkdtemp(prefix="wandb-"))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", workdir.name),
            id=identifier,
            resume="allow",
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        # By default, the axis is the number of the row. Here, it is the training step.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        _remember(workdir, "wandb", identifier)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars of a training step."""
        self._run.log({"step": step, **scalars})

    def close(self, failed: bool) -> None:
        """Finishes the run, with exit status 1 if it failed."""
        self._run.finish(exit_code=int(failed))


class MLflow:
    """Writer of metrics to a run in MLflow.

    The environment variables MLFLOW_TRACKING_URI (default: `workdir/mlflow.db`) and
    MLFLOW_EXPERIMENT_NAME apply.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
        """Starts a run, or continues the run of the workdir."""
        self._entities = import_extra("mlflow.entities", "mlflow", "the metrics writer mlflow")
        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        client = import_extra("mlflow.tracking", "mlflow", "the metrics writer mlflow")
        own = f"sqlite:///{workdir.absolute() / 'mlflow.db'}" if is_local(workdir) else None
        self._client = client.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or own)
        self._run_id = _tracked(workdir, "mlflow") or self._create(workdir, config)
        self._client.update_run(self._run_id, status="RUNNING")
        _remember(workdir, "mlflow", self._run_id)

    def _create(self, workdir: pathlib.Path, config: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        run_id = self._client.create_run(experiment_id, run_name=workdir.name).info.run_id
        parameters = [self._entities.Param(key, str(value)) for key, value in config.items()]
        # MLflow accepts 100 parameters per call.
        for first in range(0, len(parameters), 100):
            self._client.log_batch(run_id, params=parameters[first : first + 100])
        return run_id

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one metric per scalar."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, failed: bool) -> None:
        """Ends the run with the status FINISHED, or FAILED if `failed`."""
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


def _tracked(workdir: pathlib.Path, name: str) -> str | None:
    """Returns the identifier of the Weights & Biases or MLflow run of a workdir, or None.

    The identifier is the value of `name`, which is `wandb` or `mlflow`, in `trackers.json`.
    """
    path = workdir / TRACKERS_FILE
    return json.loads(path.read_text()).get(name) if path.exists() else None


def _remember(workdir: pathlib.Path, name: str, identifier: str) -> None:
    path = workdir / TRACKERS_FILE
    with _REMEMBERING:
        stored = json.loads(path.read_text()) if path.exists() else {}
        write_text(path, json.dumps(stored | {name: identifier}, indent=2) + "\n")


class Guarded:
    """Runs a writer in a separate thread. If the writer fails, training continues without it."""

    def __init__(self, name: str, make: Callable[[], Writer], reporter: Reporter) -> None:
        """Starts the thread, which creates the writer.

        Args:
          name: name of the writer, for the warning.
          make: function that creates the writer.
          reporter: receives one warning if the writer fails.
        """
        self._name, self._make, self._reporter = name, make, reporter
        self._has_warned = False
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"writer {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Passes the metrics of a step to the writer, without waiting for it."""
        self._work.put((step, dict(scalars)))

    def close(self, failed: bool) -> None:
        """Closes the writer after all rows are written; waits at most 60 s for this."""
        self._work.put(failed)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"it did not finish within {CLOSE_SECONDS:.0f} s after the end of the run")

    def _run(self) -> None:
        try:
            writer = self._make()
            while not isinstance(item := self._work.get(), bool):
                writer.write(*item)
            writer.close(item)
        except Exception as error:
            self._warn(" ".join(str(error).split())[:300] or type(error).__name__)

    def _warn(self, reason: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        self._reporter.warning(
            f"the metrics writer {self._name} failed: {reason}; the run continues without this "
            f"writer, and still writes all metrics to {METRICS_FILE}"
        )


def open_writers(
    names: Iterable[str],
    workdir: pathlib.Path,
    start_step: int,
    config: Mapping[str, Any],
    reporter: Reporter,
) -> list[Guarded]:
    """Opens writers of metrics.

    Args:
      names: names of the writers, from the config field `training.writers`.
      workdir: directory of the run. If it is in a bucket, the writer `tensorboard` is omitted.
      start_step: step from which the run starts or resumes.
      config: value of every config field by its dotted name.
      reporter: receives one warning per writer that fails.
    """
    make: dict[str, Callable[[], Writer]] = {
        "tensorboard": functools.partial(TensorBoard, workdir, start_step),
        "wandb": functools.partial(WandB, workdir, config),
        "mlflow": functools.partial(MLflow, workdir, config),
    }
    if not is_local(workdir):
        make.pop("tensorboard")
    return [Guarded(name, make[name], reporter) for name in names if name in make]


def check_writers(names: Iterable[str]) -> None:
    """Checks that the libraries of writers are installed.

    Raises:
      DeepLabError: a library is missing. The message states the command that installs it.
    """
    for name in names:
        if name != "tensorboard":
            import_extra(name, name, f"the metrics writer {name}")


class Monitor(contextlib.AbstractContextManager["Monitor"]):
    """Context manager that writes metrics to `metrics.jsonl` and to the chosen writers."""

    def __init__(
        self,
        workdir: pathlib.Path,
        start_step: int,
        writers: Iterable[str] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Opens the writers.

        If the run is resumed, rows of `metrics.jsonl` for steps after `start_step` are removed.

        Args:
          workdir: directory of the run.
          start_step: step from which the run starts or resumes.
          writers: names of the writers, from the config field `training.writers`.
          config: value of every config field by its dotted name.
          reporter: receives one warning per writer that fails.
        """
        kept = [row for row in read_rows(workdir) if row["step"] <= start_step]
        self._rows = RowFile(workdir / METRICS_FILE, kept)
        self._writers = open_writers(
            writers, workdir, start_step, config or {}, reporter or Reporter()
        )

    def __exit__(self, *error: object) -> None:
        """Closes the writers."""
        failed = error[0] is not None
        for writer in self._writers:
            writer.close(failed)
        self._rows.close(failed)

    def flush(self) -> None:
        """Uploads all rows of `metrics.jsonl` written so far, if the workdir is in a bucket.

        This method must be called before a checkpoint is saved, see `RowFile.flush`.
        """
        self._rows.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        self._rows.write({"step": step, **scalars})
        for writer in self._writers:
            writer.write(step, scalars)
