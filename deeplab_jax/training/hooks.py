"""Parts of the training loop: logging, throughput, early stopping, checks for NaN, pictures."""

import collections
import contextlib
import itertools
import json
import math
import pathlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tensorboardX

from deeplab_jax.data import Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import is_local, write_text
from deeplab_jax.inference import load
from deeplab_jax.parallel import is_first_host
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.setup import Run
from deeplab_jax.training.state import TrainState
from deeplab_jax.visualize import Panel, contact_sheet, write_picture, write_training_curves

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
# Seconds between two writes of `metrics.jsonl` into a bucket.
BUCKET_SECONDS = 15.0


class Monitor(contextlib.AbstractContextManager):
    """Writes scalars to `metrics.jsonl` and to TensorBoard; a context manager.

    If the workdir is in a bucket, it writes only `metrics.jsonl`.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int) -> None:
        """Opens the files and removes the rows after `start_step` that an interrupted run left."""
        self._path, self._is_local = workdir / METRICS_FILE, is_local(workdir)
        kept = [row for row in read_rows(workdir) if row["step"] <= start_step]
        self._text = "".join(json.dumps(row) + "\n" for row in kept)
        write_text(self._path, self._text)
        self._count = self._stored = len(kept)
        if not self._is_local:
            self._done, self._storing = threading.Event(), threading.Lock()
            self._thread = threading.Thread(target=self._store_often, name="metrics", daemon=True)
            self._thread.start()
        else:
            self._rows = self._path.open("a", buffering=1)
            self._events = tensorboardX.SummaryWriter(
                str(workdir / TENSORBOARD), purge_step=start_step + 1
            )

    def __exit__(self, *error: object) -> None:
        """Closes the files."""
        if self._is_local:
            self._rows.close()
            self._events.close()
            return
        self._done.set()
        self._thread.join()
        # An error that ended the block matters more than one of these rows.
        with contextlib.suppress(OSError) if error[0] else contextlib.nullcontext():
            self.flush()

    def flush(self) -> None:
        """Stores all rows in the bucket; required before a checkpoint of their step is saved."""
        if self._is_local:
            return
        with self._storing:
            count, text = self._count, self._text
            if count > self._stored:
                self._path.write_text(text)
                self._stored = count

    def _store_often(self) -> None:
        while not self._done.wait(BUCKET_SECONDS):
            # A bucket that cannot be reached for a while does not end the run.
            with contextlib.suppress(OSError):
                self.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        row = json.dumps({"step": step, **scalars}) + "\n"
        if not self._is_local:
            # Objects in a bucket cannot be appended to, so that a thread stores all rows at
            # intervals.
            self._text += row
            self._count += 1
            return
        self._rows.write(row)
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


def read_rows(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Returns the rows of `metrics.jsonl`, without an incomplete last line."""
    path = workdir / METRICS_FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Pace:
    """Measures mean loss and throughput, without the time for evaluations and saving."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.start()

    def start(self) -> None:
        """Starts a measurement; to be called just before the next step."""
        self._losses: list[jax.Array] = []
        self._started = time.perf_counter()
        self._paused = 0.0

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of a step."""
        self._losses.append(metrics["loss"])

    def pause(self, seconds: float) -> None:
        """Excludes a number of seconds from the measurement, such as the time of an evaluation."""
        self._paused += seconds

    def summarize(self, metrics: Mapping[str, jax.Array], steps_left: int) -> dict[str, float]:
        """Summarizes the steps since the last summary; waits until the last step has finished.

        Args:
          metrics: metrics of the last step.
          steps_left: number of steps until the end of training.

        Returns:
          `loss` (mean over the steps), `learning_rate` and `gradient_norm` (of the last step),
          `images_per_second`, and `seconds_left` (estimated time until the end).
        """
        loss = sum(float(loss) for loss in self._losses) / len(self._losses)
        elapsed = time.perf_counter() - self._started - self._paused
        seconds_per_step = elapsed / len(self._losses)
        self.start()
        return {
            "loss": loss,
            "learning_rate": float(metrics["learning_rate"]),
            "gradient_norm": float(metrics["gradient_norm"]),
            "images_per_second": self._batch_size / seconds_per_step,
            "seconds_left": seconds_per_step * steps_left,
        }


def describe_start(
    run: Run, state: TrainState, compiled: jax.stages.Compiled, seconds: float
) -> Iterator[str]:
    """Yields messages about devices, data, model and memory for the start of a run.

    Args:
      run: training run.
      state: initial state.
      compiled: compiled training step.
      seconds: compilation time, in seconds.
    """
    devices = list(run.mesh.devices.flat)
    shape = " × ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items())
    hosts = "" if jax.process_count() == 1 else f" in {jax.process_count()} processes"
    yield f"devices: {len(devices)} × {devices[0].device_kind}{hosts}, mesh {shape}"
    yield (
        f"data: {run.train.name}, {len(run.train)} training images, "
        f"{len(run.validation)} for validation, {len(run.description.class_names)} classes"
    )
    options = run.model.architecture
    count = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"]))
    yield (
        f"model: {run.description.architecture} on {options.backbone}, output stride "
        f"{options.output_stride}, {count:,} parameters"
    )
    yield f"step compiled in {seconds:.1f} s; {_memory(compiled)}"


def _memory(compiled: jax.stages.Compiled) -> str:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "this platform does not report memory"
    mebibytes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
    parts = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in mebibytes.items())
    return f"memory per device: {parts}"


MetricsRow = Mapping[str, float]
VALIDATION = "validation_mean_iou"
# Number of validations without a new best after which a falling training loss is a warning.
PARTING = 3


class Interval(NamedTuple):
    """Result of a validation, and the training loss before it.

    Attributes:
      step: training step of the validation.
      mean_iou: mean IoU of the validation.
      loss: mean training loss since the previous validation; None if none was logged.
    """

    step: int
    mean_iou: float
    loss: float | None


def intervals(rows: Iterable[MetricsRow]) -> list[Interval]:
    """Returns all validations of a run, each with the training loss since the previous one."""
    found: list[Interval] = []
    losses: list[float] = []
    for row in rows:
        if VALIDATION in row:
            loss = sum(losses) / len(losses) if losses else None
            found.append(Interval(int(row["step"]), row[VALIDATION], loss))
            losses = []
        elif "loss" in row:
            losses.append(row["loss"])
    return found


def validations_since_best(rows: Iterable[MetricsRow]) -> int:
    """Returns the number of validations after the best one; 0 if there are no validations.

    A mean IoU of NaN (no labeled pixels) ranks below any number.
    """
    return _since_best(intervals(rows))


def curves_part(rows: Iterable[MetricsRow]) -> str | None:
    """Returns a warning if the training loss falls and validation stagnates, else None."""
    found = intervals(rows)
    since = _since_best(found)
    last = found[-PARTING - 1 :]
    losses = [interval.loss for interval in last if interval.loss is not None]
    if since != PARTING or len(losses) < len(last) or not _falling(losses):
        return None
    best = found[-1 - since]
    if math.isnan(best.mean_iou):
        return None
    return (
        f"the network may be overfitting: the training loss fell from {losses[0]:.4g} to "
        f"{losses[-1]:.4g}, but the best validation mean IoU ({best.mean_iou:.4f}) was at step "
        f"{best.step}; consider more augmentation, dropout or weight decay, or training.patience "
        "for early stopping"
    )


def _since_best(found: Sequence[Interval]) -> int:
    # Comparisons with NaN are false, so max() would depend on the position of NaN.
    scores = [-math.inf if math.isnan(each.mean_iou) else each.mean_iou for each in found]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def _falling(values: Sequence[float]) -> bool:
    return all(later < earlier for earlier, later in itertools.pairwise(values))


# Number of steps by which the check lags, so that it never waits for the devices.
LAG = 2


class FiniteCheck:
    """Checks that metrics are finite, a few steps late, so that it never waits for the devices."""

    def __init__(self) -> None:
        self._waiting: collections.deque = collections.deque()

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of a step and checks those of `LAG` steps before.

        Raises:
          DeepLabError: the loss or the gradient norm is not finite.
        """
        self._waiting.append((step, metrics))
        if len(self._waiting) > LAG:
            self._look()

    def finish(self) -> None:
        """Checks all remaining steps; required before a state is saved.

        Raises:
          DeepLabError: see `add`.
        """
        while self._waiting:
            self._look()

    def _look(self) -> None:
        step, metrics = self._waiting.popleft()
        for name in ("loss", "gradient_norm"):
            value = float(metrics[name])
            if not math.isfinite(value):
                raise DeepLabError(
                    f"{name} became {value} at step {step}; the last checkpoint is kept. A lower "
                    "schedule.base_learning_rate or more schedule.warmup_steps usually helps"
                )


CURVES_FILE = "curves.png"
SHEET_FILE = "contact_sheet.png"
SHEET_ROWS = 6


def draw_pictures(workdir: pathlib.Path, validation: Dataset, reporter: Reporter) -> None:
    """Draws the training curves and predictions of the best checkpoint.

    Process 0 writes them to `curves.png` and `contact_sheet.png` in the workdir.

    Args:
      workdir: workdir with at least one checkpoint.
      validation: validation dataset, of which a few evenly spaced images are predicted.
      reporter: receives a message with the paths of the pictures.
    """
    # All processes must load the model, because Orbax reads collectively.
    predictor = load(workdir)
    if not is_first_host():
        return
    write_training_curves(workdir / CURVES_FILE, read_rows(workdir))
    count = min(SHEET_ROWS, len(validation))
    positions = np.linspace(0, len(validation) - 1, count).round().astype(int)
    examples = [validation[int(position)] for position in positions]
    predictions = predictor.predict_batch([example["image"] for example in examples])
    rows = [
        Panel(example["image"], example["label"], prediction)
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    sheet = contact_sheet(rows, predictor.class_names, predictor.palette)
    write_picture(workdir / SHEET_FILE, sheet)
    reporter.message(f"pictures: {workdir / CURVES_FILE}, {workdir / SHEET_FILE}")
