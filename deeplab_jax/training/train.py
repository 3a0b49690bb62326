"""The training loop: steps, evaluations and checkpoints until the end or an interruption."""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import checkpointing
from deeplab_jax.data.datasets import fingerprint
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import Evaluator
from deeplab_jax.files import as_path
from deeplab_jax.parallel import (
    PreemptionSync,
    from_first_host,
    is_first_host,
    make_mesh,
    wait_for_hosts,
)
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training import checkpoints as workdirs
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.hooks import (
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
    """Yields a function that returns whether the process was asked to stop.

    The first signal is only recorded, so that a checkpoint can be saved; the second one takes
    effect immediately. Outside the main thread, where Python receives no signals, nothing changes.
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


# Steps in the trace of `profile`, counted from the first step of the process.
PROFILED_STEPS = range(3, 8)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Result of a run: its workdir, its last step, and the validation after it."""

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
    """Trains a network, or resumes an interrupted run of the same config in the same workdir.

    The initial variables come from the newest checkpoint in the workdir; else from
    `training.init_from`, with a new classifier if the number of classes differs; else from the
    seed.

    Args:
      config: see deeplab_jax/config_fields.py.
      workdir: directory of checkpoints, metrics and pictures.
      train, validation: a prepared dataset's name, a pair of arrays (images uint8 [N, H, W, 3], or
        uint8 or uint16 [N, H, W, C] with other bands; masks [N, H, W]), or None for the config's
        dataset.
      batch_size: number of images per batch (default: `config.training.batch_size`).
      epochs: length of training in epochs (default: `config.training.num_steps`).
      reporter: receives progress events.
      mesh: devices to use (default: all devices of the job, as `config.parallel` states).
      profile: whether to write a trace of a few steps to `workdir/profile`.
      adjust: function that receives the run of the config and returns the run to train, as with
        another network, objective or optimizer. A resumed run requires the same function.

    Raises:
      DeepLabError: the config, a dataset or the workdir is invalid, or the loss became infinite or
        NaN; the last good checkpoint is kept.
      KeyboardInterrupt: the run was asked to stop; its state has been saved.
    """
    workdir, reporter = as_path(workdir), reporter or LoggingReporter()
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
    _open_workdir(run, evaluator)
    with Checkpointer(workdir, reporter) as checkpointer, interruption() as asked_to_stop:
        state = initial_state(run, checkpointer, reporter)
        monitor = Monitor(workdir, int(state.step)) if is_first_host() else None
        with monitor or contextlib.nullcontext():
            loop = Loop(run, evaluator, checkpointer, monitor, reporter, profile)
            result = loop.train(state, asked_to_stop)
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
    """Claims the workdir for this run in process 0; all processes wait for it."""
    data = {"train": fingerprint(run.train), "validation": fingerprint(run.validation)}
    _check_hosts_share(data)
    if is_first_host():
        workdirs.claim(run.workdir, run.config, data)
        description = dataclasses.replace(run.description, inference_size=evaluator.size)
        checkpointing.write_description(run.workdir, description)
        workdirs.write_manifest(run.workdir, run.mesh)
    wait_for_hosts("workdir")


def _check_hosts_share(data: dict[str, dict[str, Any]]) -> None:
    """Checks that every process reads the same data as process 0.

    Raises:
      DeepLabError: this process reads other data.
    """
    digest = hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=16).digest()
    own = np.frombuffer(digest, np.uint8)
    if not np.array_equal(from_first_host(own), own):
        raise DeepLabError(
            f"process {jax.process_index()} reads other data than process 0 (its own: {data}); "
            "give all processes the same files, as in a shared data.data_dir"
        )


@dataclasses.dataclass
class Loop:
    """The loop over steps, with the hooks around each step.

    Attributes:
      monitor: writes the scalars; None in processes that write nothing.
      profile: whether a trace of a few steps is written.
    """

    run: Run
    evaluator: Evaluator
    checkpointer: Checkpointer
    monitor: Monitor | None
    reporter: Reporter
    profile: bool

    def __post_init__(self) -> None:
        self.config, self.num_steps = self.run.config, self.run.config.training.num_steps
        self.finite, self.stopping = FiniteCheck(), PreemptionSync(self.run.mesh)
        self.pace = Pace(self.config.training.batch_size)
        self.mean_iou = math.nan

    def train(self, state: TrainState, asked_to_stop: Callable[[], bool]) -> TrainingResult:
        """Trains from the state to the last step."""
        first = int(state.step)
        if first < self.num_steps and not self._no_better():
            state = self._run_steps(state, asked_to_stop)
        else:
            early = f" (of {self.num_steps}: it stopped early)" if first < self.num_steps else ""
            self.reporter.message(f"all {first} steps are done already{early}")
            self.mean_iou = self._evaluate(first, state)
        return TrainingResult(self.run.workdir, int(state.step), self.mean_iou)

    def _run_steps(self, state: TrainState, asked_to_stop: Callable[[], bool]) -> TrainState:
        first = int(state.step)
        batches = run_batches(self.run, first)
        batch: Any = next(batches)
        step_function = self._compile(state, batch)
        self.pace.start()
        for step in range(first + 1, self.num_steps + 1):
            with self._trace(step - first):
                state, metrics = step_function(state, batch)
                # The next batch is read while the devices work on this one.
                batch = next(batches) if step < self.num_steps else None
            self.finite.add(step, metrics)
            self.pace.add(metrics)
            stopping = self.stopping(asked_to_stop())
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
        started = time.perf_counter()
        compiled = step_function.lower(state, batch).compile()
        seconds = time.perf_counter() - started
        wait_for_hosts("compiled")
        for line in describe_start(self.run, state, compiled, seconds):
            self.reporter.message(line)
        return compiled

    @contextlib.contextmanager
    def _trace(self, steps_done: int) -> Iterator[None]:
        """Writes a profile of `PROFILED_STEPS` where it was asked for."""
        if self.profile and steps_done == PROFILED_STEPS[0]:
            jax.profiler.start_trace(str(self.run.workdir / "profile"))
        yield
        if self.profile and steps_done == PROFILED_STEPS[-1]:
            jax.profiler.stop_trace()

    def _after_step(
        self, step: int, state: TrainState, metrics: dict[str, jax.Array], stopping: bool
    ) -> bool:
        """Runs the logging, evaluation and saving that are due; returns whether it evaluated."""
        last = step == self.num_steps
        if last or step % self.config.log_every_steps == 0:
            scalars = self.pace.summarize(metrics, self.num_steps - step)
            self.reporter.training_step(step, self.num_steps, scalars)
            del scalars["seconds_left"]
            self._write(step, scalars)
        started = time.perf_counter()
        mean_iou = None
        if last or (step % self.config.evaluation.every_steps == 0 and not stopping):
            mean_iou = self.mean_iou = self._evaluate(step, state)
        due = step % self.config.checkpoint.every_steps == 0
        if last or stopping or due or mean_iou is not None:
            # A state is saved only if the metrics of all steps before it are finite.
            self.finite.finish()
            self.checkpointer.save(state, self._info(step), mean_iou)
        if stopping and not last:
            self.checkpointer.wait()
            wait_for_hosts("stopped")
            self.reporter.message(f"stopped at step {step}; the same command resumes it")
            raise KeyboardInterrupt
        self.pace.pause(time.perf_counter() - started)
        return mean_iou is not None

    def _evaluate(self, step: int, state: TrainState) -> float:
        self.finite.finish()
        confusion = self.evaluator.run(state.evaluated, self.reporter)
        mean_iou = confusion.mean_iou
        accuracy = confusion.pixel_accuracy
        self._write(step, {"validation_mean_iou": mean_iou, "validation_pixel_accuracy": accuracy})
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

    def _info(self, step: int) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "class_names": list(self.run.description.class_names),
            "data_position": {"seed": self.config.seed, "step": step},
        }
