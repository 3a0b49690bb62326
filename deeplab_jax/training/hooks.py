"""Parts of the training loop: messages, early stopping, checks for NaN, and pictures."""

import collections
import itertools
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from deeplab_jax.data import Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import load
from deeplab_jax.parallel import is_first_host
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.setup import Run, run_batches
from deeplab_jax.training.state import TrainState
from deeplab_jax.training.writers import read_rows
from deeplab_jax.visualize import (
    Panel,
    contact_sheet,
    example_sheet,
    write_picture,
    write_training_curves,
)


def describe_start(
    run: Run, state: TrainState, compiled: jax.stages.Compiled, seconds: float
) -> Iterator[str]:
    """Yields the messages at the start of a run: devices, data, model, compilation and memory.

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
        return "this platform does not report the memory of the step"
    mebibytes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
    parts = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in mebibytes.items())
    return f"memory per device: {parts}"


MetricsRow = Mapping[str, float]
VALIDATION = "validation_mean_iou"
# Number of consecutive validations that cause a warning of overfitting: all of them are below the
# best validation, and the training loss falls from each to the next.
PARTING = 3


class Interval(NamedTuple):
    """Interval of training steps that ends with a validation.

    Attributes:
      step: training step of the validation, the last one of the interval.
      mean_iou: mean IoU of the validation, as a fraction.
      loss: mean training loss of the interval; None if no loss was logged in it.
    """

    step: int
    mean_iou: float
    loss: float | None


def intervals(rows: Iterable[MetricsRow]) -> list[Interval]:
    """Returns the interval before each validation of a run."""
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
    """Returns the number of validations after the best validation; 0 without any validation.

    A mean IoU of NaN (no labeled pixels) ranks below any number.
    """
    return _since_best(intervals(rows))


def curves_part(rows: Iterable[MetricsRow]) -> str | None:
    """Returns a warning of overfitting if the training loss falls, but the mean IoU does not rise.

    The curves of loss and mean IoU then part. The warning is returned only at the third validation
    after the best one, so that later validations do not repeat it. The mean training loss must
    have decreased at each of these three validations. Otherwise, or if every mean IoU is NaN, the
    result is None.
    """
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


# Number of steps by which `FiniteCheck` is delayed.
LAG = 2


class FiniteCheck:
    """Checks that the loss and the gradient norm of every training step are finite.

    The metrics of a step are checked two steps later, so that the check does not wait for the
    devices.
    """

    def __init__(self) -> None:
        self._waiting: collections.deque[tuple[int, Mapping[str, jax.Array]]] = collections.deque()

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of a step, and checks the metrics of the step two steps earlier.

        Raises:
          DeepLabError: the loss or the gradient norm is not finite.
        """
        self._waiting.append((step, metrics))
        if len(self._waiting) > LAG:
            self._look()

    def finish(self) -> None:
        """Checks the added steps that are not yet checked; required before a state is saved.

        Raises:
          DeepLabError: the loss or the gradient norm is not finite.
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


# Maximum number of examples on the preview.
PREVIEWED = 16


def draw_first_batch(run: Run, path: pathlib.Path) -> None:
    """Draws at most 16 examples of the first training batch, after augmentation and mixing.

    Args:
      run: training run. Nothing is written to its workdir.
      path: PNG file to write.
    """
    batch = next(run_batches(run, 0))
    images, labels = (np.asarray(batch[name])[:PREVIEWED] for name in ("image", "label"))
    names, palette = run.description.class_names, run.description.palette
    write_picture(path, example_sheet(list(images), list(labels), names, palette))


def draw_pictures(workdir: pathlib.Path, validation: Dataset, reporter: Reporter) -> None:
    """Draws the training curves of a run, and predictions of its best checkpoint.

    Process 0 writes the curves to `curves.png` in the workdir, and the predictions to
    `contact_sheet.png`.

    Args:
      workdir: workdir with at least one checkpoint.
      validation: validation dataset. Predictions are drawn for a few evenly spaced images of it.
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
