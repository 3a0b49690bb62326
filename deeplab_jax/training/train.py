"""Training loop with evaluations and checkpoints."""

import contextlib
import dataclasses
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import checkpointing
from deeplab_jax import config as configs
from deeplab_jax.data.datasets import fingerprint
from deeplab_jax.evaluation import Evaluator
from deeplab_jax.files import as_path
from deeplab_jax.parallel import (
    PreemptionSync,
    Progress,
    check_hosts_agree,
    from_first_host,
    is_first_host,
    make_mesh,
    wait_for_hosts,
    watchdog,
)
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training import checkpoints as workdirs
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.hooks import (
    VALIDATION,
    FiniteCheck,
    Monitor,
    Pace,
    curves_part,
    describe_start,
    draw_pictures,
    read_rows,
    validations_since_best,
)
from deeplab_jax.training.initialization import initial_state
from deeplab_jax.training.lock import workdir_lock
from deeplab_jax.training.setup import (
    Run,
    Source,
    assemble,
    run_batches,
)
from deeplab_jax.training.state import TrainState
from deeplab_jax.training.step import Batch, make_run_step


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether the process has received SIGINT or SIGTERM.

    The first signal is only recorded, so that a checkpoint can be saved; the second one has its
    usual effect. Outside the main thread, Python receives no signals, and the function returns
    False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        asked.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Factors by which compilation and checkpoints may take longer than training.watchdog_seconds.
COMPILATION_FACTOR, SAVING_FACTOR = 12, 4
# Steps that `profile` traces, counted from the first step of this process.
PROFILED_STEPS = range(3, 8)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Result of a training run.

    Attributes:
      workdir: directory of the run.
      step: last training step.
      mean_iou: validation mean IoU after that step.
    """

    workdir: pathlib.Path
    step: int
    mean_iou: float


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    train: Source = None,
    validation: Source = None,
    *,
    batch_size: int | None = None,
    epochs: float | None = None,
    reporter: Reporter | None = None,
    mesh: Mesh | None = None,
    profile: bool = False,
    adjust: Callable[[Run], Run] = lambda run: run,
) -> TrainingResult:
    """Trains a network, or resumes an interrupted run.

    If the workdir has checkpoints, training resumes from the last one. Otherwise, the variables are
    initialized from the model `training.init_from`, or randomly.

    Args:
      config: config of the run, see deeplab_jax/config_fields.py.
      workdir: directory for checkpoints, metrics and pictures. A run can only be resumed with the
        config that it was started with.
      train, validation: name of a prepared dataset, or a pair of arrays (images uint8 [N, H, W, 3],
        or uint8 or uint16 [N, H, W, C] with other bands; masks [N, H, W]); None: the dataset of the
        config.
      batch_size: number of images per batch (default: `config.training.batch_size`).
      epochs: number of training epochs (default: `config.training.num_steps` steps).
      reporter: receives progress events.
      mesh: device mesh (default: all devices of the job, divided as in `config.parallel`).
      profile: whether to write a trace of a few steps to `workdir/profile`.
      adjust: function that changes the run before training, for example its network, objective or
        optimizer. A resumed run requires the same function.

    Raises:
      DeepLabError: the config, a dataset or the workdir is invalid, or the loss became infinite or
        NaN. The last valid checkpoint is kept.
      KeyboardInterrupt: the run received SIGINT or SIGTERM; its state has been saved.
    """
    workdir, reporter = as_path(workdir), reporter or LoggingReporter()
    workdirs.check_workdir(workdir)
    run = adjust(
        assemble(
            config,
            workdir,
            mesh or make_mesh(data=config.parallel.data, spatial=config.parallel.spatial),
            train,
            validation,
            batch_size=batch_size,
            epochs=epochs,
            reporter=reporter,
        )
    )
    evaluator = _make_evaluator(run)
    lock = contextlib.nullcontext(lambda: None)
    with workdir_lock(workdir, reporter) if is_first_host() else lock as check_lock:
        _open_workdir(run, evaluator)
        return _train(run, evaluator, reporter, profile, check_lock)


def _train(
    run: Run,
    evaluator: Evaluator,
    reporter: Reporter,
    profile: bool,
    check_lock: Callable[[], None],
) -> TrainingResult:
    """Trains in a workdir that this job has locked."""
    workdir = run.workdir
    with (
        interruption() as asked_to_stop,
        watchdog(run.config.training.watchdog_seconds) as report_progress,
        Checkpointer(workdir, reporter) as checkpointer,
    ):

        def progress(doing: str, factor: float = 1) -> None:
            check_lock()
            report_progress(doing, factor)

        progress("reading the initial variables", SAVING_FACTOR)
        state = initial_state(run, checkpointer, reporter)
        monitor = Monitor(workdir, int(state.step)) if is_first_host() else None
        with monitor or contextlib.nullcontext():
            loop = Loop(
                run, evaluator, checkpointer, monitor, reporter, profile, asked_to_stop, progress
            )
            result = loop.train(state)
        progress("saving the last checkpoint", SAVING_FACTOR)
    draw_pictures(run.workdir, run.validation, reporter)
    return result


def _make_evaluator(run: Run) -> Evaluator:
    evaluation = run.config.evaluation
    return Evaluator(
        run.model,
        run.validation,
        size=evaluation.size,
        batch_size=evaluation.batch_size,
        mesh=run.mesh,
        workers=run.config.data.workers,
        limit=evaluation.limit,
    )


def _open_workdir(run: Run, evaluator: Evaluator) -> None:
    """Writes config, data and description of the run in process 0; all processes wait for it."""
    data = {"train": fingerprint(run.train), "validation": fingerprint(run.validation)}
    check_hosts_agree(_facts(run, data))
    if is_first_host():
        workdirs.claim(run.workdir, run.config, data)
        description = dataclasses.replace(run.description, inference_size=evaluator.size)
        checkpointing.write_description(run.workdir, description)
        workdirs.write_manifest(run.workdir, run.mesh)
    wait_for_hosts("workdir")


# Fields that each host may set for itself.
LOCAL_FIELDS = ("data.data_dir", "data.workers")


def _facts(run: Run, data: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the values that must be equal on all hosts: config, datasets, versions and mesh."""
    fields = dict(configs.flatten(run.config))
    return {
        **{name: value for name, value in fields.items() if name not in LOCAL_FIELDS},
        **{f"the {role} data": facts for role, facts in data.items()},
        **workdirs.versions(),
        "the mesh": dict(run.mesh.shape),
    }


@dataclasses.dataclass
class Loop:
    """Training loop.

    Attributes:
      run: training run.
      evaluator: evaluates the network on the validation dataset.
      checkpointer: saves the state.
      monitor: writes scalars; None in all processes but the first.
      reporter: receives progress events.
      profile: whether to write a trace of a few steps.
      asked_to_stop: function that returns whether this process received SIGINT or SIGTERM.
      progress: function to call at the start of each activity, see `watchdog`.
    """

    run: Run
    evaluator: Evaluator
    checkpointer: Checkpointer
    monitor: Monitor | None
    reporter: Reporter
    profile: bool
    asked_to_stop: Callable[[], bool]
    progress: Progress

    def __post_init__(self) -> None:
        self.config, self.num_steps = self.run.config, self.run.config.training.num_steps
        self.finite, self.stopping = FiniteCheck(), PreemptionSync(self.run.mesh)
        self.pace = Pace(self.config.training.batch_size)
        self.mean_iou = math.nan

    def train(self, state: TrainState) -> TrainingResult:
        """Trains from the step of the given state to the last step, or until early stopping."""
        first = int(state.step)
        if first < self.num_steps and not self._no_better():
            self._catch_up(first, state)
            state = self._run_steps(state)
        else:
            early = f" (of {self.num_steps}: it stopped early)" if first < self.num_steps else ""
            self.reporter.message(f"all {first} steps are done already{early}")
            if not self._catch_up(first, state):
                self._evaluate(first, state)
        return TrainingResult(self.run.workdir, int(state.step), self.mean_iou)

    def _catch_up(self, first: int, state: TrainState) -> bool:
        """Runs the validation of the first step if it is due and was interrupted."""
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
        self.pace.start()
        for step in range(first + 1, self.num_steps + 1):
            with self._trace(step - first):
                state, metrics = step_function(state, batch)
                self.progress(f"reading the batch of step {step + 1}")
                # The next batch is read while the devices work on this one.
                batch = next(batches) if step < self.num_steps else None
            self.progress(f"waiting for the devices to compute step {step}")
            self.finite.add(step, metrics)
            self.pace.add(metrics)
            stopping = self.stopping(self.asked_to_stop())
            evaluated = self._after_step(step, state, metrics, stopping)
            if evaluated and self._no_better():
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
        started = time.perf_counter()
        compiled = step_function.lower(state, batch).compile()
        seconds = time.perf_counter() - started
        wait_for_hosts("compiled")
        self.progress("computing the first step")
        for line in describe_start(self.run, state, compiled, seconds):
            self.reporter.message(line)
        return compiled

    @contextlib.contextmanager
    def _trace(self, steps_done: int) -> Iterator[None]:
        """Writes a trace of `PROFILED_STEPS` if `profile` is set."""
        if self.profile and steps_done == PROFILED_STEPS[0]:
            jax.profiler.start_trace(str(self.run.workdir / "profile"))
        yield
        if self.profile and steps_done == PROFILED_STEPS[-1]:
            jax.profiler.stop_trace()

    def _after_step(
        self, step: int, state: TrainState, metrics: dict[str, jax.Array], stopping: bool
    ) -> bool:
        """Logs, evaluates and saves if they are due after a step; returns whether it evaluated."""
        last = step == self.num_steps
        if last or step % self.config.log_every_steps == 0:
            scalars = self.pace.summarize(metrics, self.num_steps - step)
            self.reporter.training_step(step, self.num_steps, scalars)
            del scalars["seconds_left"]
            self._write(step, scalars)
        started = time.perf_counter()
        mean_iou = None
        if last or (self._validates(step) and not stopping):
            mean_iou = self._evaluate(step, state)
            # A request to stop ends a validation without a result.
            stopping = (stopping and not last) or mean_iou is None
        due = step % self.config.checkpoint.every_steps == 0
        if last or stopping or due or mean_iou is not None:
            # A state is saved only if the metrics of all steps before it are finite.
            self.finite.finish()
            self.progress(f"saving the checkpoint of step {step}", SAVING_FACTOR)
            if self.monitor is not None:
                self.monitor.flush()
            self.checkpointer.save(state, self._info(step), mean_iou)
        if stopping:
            self._stop(step)
        self.pace.pause(time.perf_counter() - started)
        return mean_iou is not None

    def _stop(self, step: int) -> NoReturn:
        """Leaves the loop, with the state of the step saved."""
        self.progress(f"saving the checkpoint of step {step}", SAVING_FACTOR)
        self.checkpointer.wait()
        wait_for_hosts("stopped")
        self.reporter.message(f"stopped at step {step}; the same command resumes it")
        raise KeyboardInterrupt

    def _stops_validation(self) -> bool:
        self.progress("validating")
        return self.stopping(self.asked_to_stop())

    def _evaluate(self, step: int, state: TrainState) -> float | None:
        """Returns the mean IoU of the validation split; None if asked to stop before the end."""
        self.finite.finish()
        self.progress("compiling the validation", COMPILATION_FACTOR)
        confusion = self.evaluator.run(
            state.evaluated, self.reporter, stopping=self._stops_validation
        )
        if confusion is None:
            return None
        mean_iou = self.mean_iou = confusion.mean_iou
        accuracy = confusion.pixel_accuracy
        self._write(step, {VALIDATION: mean_iou, "validation_pixel_accuracy": accuracy})
        self.reporter.message(
            f"step {step}: validation mean IoU {mean_iou:.4f}, pixel accuracy {accuracy:.4f}"
        )
        if math.isnan(mean_iou):
            self.reporter.warning(
                f"step {step}: the mean IoU is NaN because the validation images have no labeled "
                "pixel, so neither the best checkpoint nor training.patience can go by it; check "
                "data.validation_split and evaluation.limit"
            )
        warning = curves_part(read_rows(self.run.workdir))
        if warning:
            self.reporter.warning(warning)
        return mean_iou

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self.monitor is not None:
            self.monitor.write(step, scalars)
            if VALIDATION in scalars:
                # Early stopping reads the validations from the file.
                self.monitor.flush()

    def _info(self, step: int) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "class_names": list(self.run.description.class_names),
            "data_position": {"seed": self.config.seed, "step": step},
        }
