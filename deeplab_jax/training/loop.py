"""Training loop, which trains, logs, validates and saves checkpoints."""

import contextlib
import dataclasses
import gc
import math
import pathlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from deeplab_jax.evaluation import Evaluator
from deeplab_jax.parallel import (
    JobInterrupt,
    PreemptionSync,
    Progress,
    from_first_host,
    is_first_host,
    latest_of_hosts,
    wait_for_hosts,
)
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import goodput as goodputs
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.goodput import Timeline
from deeplab_jax.training.hooks import (
    VALIDATION,
    FiniteCheck,
    curves_part,
    describe_start,
    validations_since_best,
)
from deeplab_jax.training.measurements import (
    Pace,
    Utilization,
    peak_memory,
    slow_host,
    slow_host_warning,
)
from deeplab_jax.training.setup import Run, run_batches
from deeplab_jax.training.state import TrainState
from deeplab_jax.training.step import Batch, make_run_step
from deeplab_jax.training.traces import Traces
from deeplab_jax.training.writers import Monitor, read_rows

# Maximum time of compilation and of saving a checkpoint, in units of training.watchdog_seconds.
COMPILATION_FACTOR, SAVING_FACTOR = 12, 4


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Result of a training run.

    Attributes:
      workdir: directory of the run.
      step: last training step.
      mean_iou: validation mean IoU after that step, as a fraction.
      goodput: breakdown of the time of the run over all its starts; None in all processes but
        process 0.
    """

    workdir: pathlib.Path
    step: int
    mean_iou: float
    goodput: goodputs.Goodput | None = None


@dataclasses.dataclass
class Logs:
    """Destinations of the metrics of a run.

    Attributes:
      monitor: writes scalars; None in all processes but process 0.
      timeline: records the use of the time; None in all processes but process 0.
      reporter: receives progress events.
    """

    monitor: Monitor | None
    timeline: Timeline | None
    reporter: Reporter

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        if self.monitor is not None:
            self.monitor.write(step, scalars)
            if VALIDATION in scalars:
                # Early stopping reads the validations from `metrics.jsonl`.
                self.monitor.flush()

    def record(self, step: int, totals: Mapping[str, float]) -> None:
        """Records in the timeline that the steps up to `step` have ended.

        Args:
          step: last step that has ended.
          totals: seconds per activity since the first step of this start, see `Timeline.steps`.
        """
        if self.timeline is not None:
            self.timeline.steps(step, totals)

    def begin(self, step: int) -> None:
        """Records in the timeline that the steps after `step` begin now."""
        if self.timeline is not None:
            self.timeline.training(step)

    def goodput(self) -> dict[str, float]:
        """Returns {"goodput": `Goodput.fraction`} over all starts of the run.

        The result is {} before the first training step, and in all processes but process 0.
        """
        fraction = math.nan if self.timeline is None else self.timeline.goodput().fraction
        return {} if math.isnan(fraction) else {"goodput": fraction}

    def flush(self) -> None:
        """Uploads all rows of metrics and timeline if the workdir is in a bucket."""
        for log in (self.monitor, self.timeline):
            if log is not None:
                log.flush()


@dataclasses.dataclass
class Loop:
    """Training loop of a run, called by `train`.

    Attributes:
      run: training run.
      evaluator: evaluates the network on the validation dataset.
      checkpointer: saves the state.
      logs: receive metrics and progress.
      traces: writes traces of a few steps on request.
      asked_to_stop: function that returns whether this process received SIGINT or SIGTERM.
      progress: function to call with the name of an activity when it starts, see `watchdog`.
    """

    run: Run
    evaluator: Evaluator
    checkpointer: Checkpointer
    logs: Logs
    traces: Traces
    asked_to_stop: Callable[[], bool]
    progress: Progress

    def __post_init__(self) -> None:
        self.config, self.num_steps = self.run.config, self.run.config.training.num_steps
        self.finite, self.stopping = FiniteCheck(), PreemptionSync(self.run.mesh)
        self.pace = Pace(self.config.training.batch_size)
        self.reporter = self.logs.reporter
        self.mean_iou = math.nan
        self.slow_hosts: set[int] = set()
        self.goodput: dict[str, float] = {}

    def train(self, state: TrainState) -> TrainingResult:
        """Trains from the step of the given state to the last step, or until early stopping."""
        first = int(state.step)
        # Early stopping also counts a validation that was interrupted and runs now.
        caught_up = self._catch_up(first, state)
        if first < self.num_steps and not self._no_better():
            with contextlib.closing(self.pace):
                state = self._run_steps(state)
        else:
            done = f"all {first} steps are done already"
            if first < self.num_steps:
                done = f"the run stopped early at step {first} of {self.num_steps}"
            self.reporter.message(f"nothing to train: {done}")
            if not caught_up and self._evaluate(first, state) is None:
                self._stop(first)
        return TrainingResult(self.run.workdir, int(state.step), self.mean_iou)

    def _catch_up(self, first: int, state: TrainState) -> bool:
        """Runs the validation of step `first` if it is due and no earlier start has finished it.

        Args:
          first: step of the checkpoint from which the run was resumed.
          state: state after this step.

        Returns:
          True if the validation ran.
        """
        if first == 0 or not (first == self.num_steps or self._validates(first)):
            return False
        rows = read_rows(self.run.workdir) if is_first_host() else []
        done = any(VALIDATION in row and row["step"] == first for row in rows)
        if bool(from_first_host(np.int32(done))):
            return False
        mean_iou = self._evaluate(first, state)
        if mean_iou is None:
            self._stop(first)
        else:
            self.checkpointer.rank(state, self._info(first), mean_iou)
        return True

    def _validates(self, step: int) -> bool:
        return step % self.config.evaluation.every_steps == 0

    def _run_steps(self, state: TrainState) -> TrainState:
        first = int(state.step)
        self.progress(f"reading the batch of step {first + 1}")
        batches = run_batches(self.run, first)
        batch: Any = next(batches)
        step_function = self._compile(state, batch)
        self.logs.begin(first)
        self.pace.start()
        for step in range(first + 1, self.num_steps + 1):
            self.traces.before_step(step, step - first - 1)
            state, metrics = step_function(state, batch)
            self.pace.add(metrics)
            self.progress(f"reading the batch of step {step + 1}")
            with self.pace.reading():
                # The next batch is read while the devices compute this step.
                batch = next(batches) if step < self.num_steps else None
            self.progress(f"waiting for the devices to compute step {step}")
            self.finite.add(step, metrics)
            self.traces.after_step(step, metrics["loss"])
            stopping = self.stopping(self.asked_to_stop())
            evaluated = self._after_step(step, state, metrics, stopping)
            if evaluated and step < self.num_steps and self._no_better():
                self.reporter.message(
                    f"stopped early at step {step}: the last {self.config.training.patience} "
                    "validations found no better network (training.patience)"
                )
                break
        return state

    def _no_better(self) -> bool:
        """Returns whether early-stopping patience is exhausted."""
        patience = self.config.training.patience
        if patience < 1:
            return False
        since = validations_since_best(read_rows(self.run.workdir)) if is_first_host() else 0
        return patience <= int(from_first_host(np.int32(since)))

    def _compile(self, state: TrainState, batch: Batch) -> jax.stages.Compiled:
        step_function = make_run_step(self.run, state)
        self.progress("compiling the training step", COMPILATION_FACTOR)
        self.utilization = Utilization(self.run)
        started = time.perf_counter()
        with _garbage_collection_paused():
            compiled = step_function.lower(state, batch).compile()
        seconds = time.perf_counter() - started
        wait_for_hosts("compiled")
        self.progress("computing the first step")
        for line in describe_start(self.run, state, compiled, seconds):
            self.reporter.message(line)
        if is_first_host():
            self.reporter.message(self.utilization.describe_peak())
        return compiled

    def _after_step(
        self, step: int, state: TrainState, metrics: dict[str, jax.Array], stopping: bool
    ) -> bool:
        """Logs, evaluates and saves after a step, each only when it is due.

        Returns:
          True if the network was evaluated.
        """
        last = step == self.num_steps
        if last or step % self.config.log_every_steps == 0:
            self._log(step, metrics)
        mean_iou = None
        if last or (self._validates(step) and not stopping):
            with self.pace.pausing(goodputs.VALIDATION):
                mean_iou = self._evaluate(step, state)
            # If the run is asked to stop during a validation, the validation has no result.
            stopping = (stopping and not last) or mean_iou is None
        due = step % self.config.checkpoint.every_steps == 0
        if last or stopping or due or mean_iou is not None:
            with self.pace.pausing(goodputs.CHECKPOINT):
                self._save(step, state, mean_iou)
            self.logs.record(step, self.pace.totals)
            self.goodput = self.logs.goodput()
        if stopping:
            self._stop(step)
        return mean_iou is not None

    def _log(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Reports and writes the metrics of the steps since the last call."""
        scalars = self.pace.summarize(metrics, self.num_steps - step)
        scalars |= self.utilization.at(scalars["step_seconds"]) | self.goodput
        scalars |= peak_memory(self.run.mesh)
        self.logs.record(step, self.pace.totals)
        self._exchange(step, scalars)
        self.reporter.training_step(step, self.num_steps, scalars)
        del scalars["seconds_left"]
        self.logs.write(step, scalars)

    def _exchange(self, step: int, scalars: Mapping[str, float]) -> None:
        """Exchanges measurements with all processes.

        Warns of slow hosts, and agrees with all processes on the steps of the next trace.

        Args:
          step: last step that has ended.
          scalars: metrics of this process, including `step_seconds` and `input_wait_fraction`.
        """
        times: dict[str, Any] = {
            "process": jax.process_index(),
            "host": socket.gethostname(),
            "trace_after": self.traces.agreed_start(step, self.config.log_every_steps),
            **{name: scalars[name] for name in ("step_seconds", "input_wait_fraction")},
        }
        found = latest_of_hosts("times", times)
        first = next((one for one in found if one["process"] == 0), times)
        self.traces.agree(step, first["trace_after"])
        slow = slow_host(found)
        if slow is not None and slow["process"] not in self.slow_hosts and is_first_host():
            self.slow_hosts.add(slow["process"])
            self.reporter.warning(slow_host_warning(slow))

    def _save(self, step: int, state: TrainState, mean_iou: float | None) -> None:
        # A state is saved only if the metrics of all steps before it are finite.
        self.finite.finish()
        self.progress(f"saving the checkpoint of step {step}", SAVING_FACTOR)
        self.logs.flush()
        self.checkpointer.save(state, self._info(step), mean_iou)

    def _stop(self, step: int) -> NoReturn:
        """Waits until the state of the step is saved, and raises JobInterrupt in all processes."""
        self.progress(f"saving the checkpoint of step {step}", SAVING_FACTOR)
        with self.pace.pausing(goodputs.CHECKPOINT):
            self.checkpointer.wait()
        self.logs.record(step, self.pace.totals)
        wait_for_hosts("stopped")
        self.reporter.message(f"stopped at step {step}; the same command resumes the run")
        raise JobInterrupt

    def _stops_validation(self) -> bool:
        self.progress("validating")
        return self.stopping(self.asked_to_stop())

    def _evaluate(self, step: int, state: TrainState) -> float | None:
        """Returns the mean IoU of the validation split; None if the validation was interrupted."""
        self.finite.finish()
        self.progress("compiling the validation", COMPILATION_FACTOR)
        started = time.perf_counter()
        confusion = self.evaluator.run(
            state.evaluated, self.reporter, stopping=self._stops_validation
        )
        if confusion is None:
            return None
        mean_iou = self.mean_iou = confusion.mean_iou
        accuracy = confusion.pixel_accuracy
        seconds = time.perf_counter() - started
        self.logs.write(
            step,
            {
                VALIDATION: mean_iou,
                "validation_pixel_accuracy": accuracy,
                "validation_seconds": seconds,
            },
        )
        self.reporter.message(
            f"step {step}: validation mean IoU {mean_iou:.4f}, pixel accuracy {accuracy:.4f}"
        )
        if math.isnan(mean_iou):
            self.reporter.warning(
                f"step {step}: the mean IoU is NaN because the validation images have no labeled "
                "pixel, so neither the best checkpoint nor early stopping can be determined; check "
                "data.validation_split and evaluation.limit"
            )
        warning = curves_part(read_rows(self.run.workdir)) if is_first_host() else None
        if warning:
            self.reporter.warning(warning)
        return mean_iou

    def _info(self, step: int) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "class_names": list(self.run.description.class_names),
            "data_position": {"seed": self.config.seed, "step": step},
        }


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Context manager that pauses the collection of reference cycles.

    Tracing creates many objects that stay alive. Collections during tracing therefore free hardly
    any memory, but they take about a quarter of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
