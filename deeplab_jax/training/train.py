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
from collections.abc import Callable, Iterator
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
    NoMonitor,
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

    The first signal is noted, so that a checkpoint can be saved; a second one acts at once. Outside
    the main thread, where Python receives no signals, nothing is changed.
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


# With `profile`, the steps after the first that the trace shows.
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
    """Trains, or goes on with an interrupted run of the same config in the same workdir.

    Variables come from the newest checkpoint in the workdir; else from `training.init_from`, with a
    fresh classifier where the number of classes differs; else from the seed.

    Args:
      config: see deeplab_jax/config_fields.py.
      workdir: where checkpoints, numbers and pictures go.
      train, validation: a prepared data set's name, a pair of arrays (images uint8 [N, H, W, 3],
        masks [N, H, W]), or None for the config's data set.
      batch_size: instead of `config.training.batch_size`.
      epochs: passes over the training images, instead of `config.training.num_steps`.
      reporter: receives progress events.
      mesh: of the devices to use; default: all of the job, as `config.parallel` says.
      profile: write a trace of a few steps to `workdir/profile`.
      adjust: returns the run that is meant, of the one that the config says: with another network,
        objective or optimiser. A run that goes on needs the same.

    Raises:
      DeepLabError: the config, a data set or the workdir is not right; or the loss left the
        finite, with the last good checkpoint kept.
      KeyboardInterrupt: the run was asked to stop, and its state is saved.
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
        make_monitor = Monitor if is_first_host() else NoMonitor
        with make_monitor(workdir, int(state.step)) as monitor:
            loop = Loop(run, evaluator, checkpointer, monitor, reporter, profile)
            result = loop.run(state, asked_to_stop)
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
    """Makes the workdir this run's; one process does, all wait for it."""
    data = {"train": fingerprint(run.train), "validation": fingerprint(run.validation)}
    _check_hosts_share(data)
    if is_first_host():
        workdirs.claim(run.workdir, run.config, data)
        description = dataclasses.replace(run.description, inference_size=evaluator.size)
        checkpointing.write_description(run.workdir, description)
        workdirs.write_manifest(run.workdir, run.mesh)
    wait_for_hosts("workdir")


def _check_hosts_share(data: dict[str, dict[str, Any]]) -> None:
    """Checks that every process reads the data that process 0 reads.

    Raises:
      DeepLabError: on the processes that read other data.
    """
    digest = hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=16).digest()
    own = np.frombuffer(digest, np.uint8)
    if not np.array_equal(from_first_host(own), own):
        raise DeepLabError(
            f"process {jax.process_index()} reads other data than process 0 (its own: {data}); "
            "give all processes the same files, as in a shared data.data_dir"
        )


class Loop:
    """The loop over steps; holds what a step's surroundings need."""

    def __init__(
        self,
        run: Run,
        evaluator: Evaluator,
        checkpointer: Checkpointer,
        monitor: Monitor,
        reporter: Reporter,
        profile: bool,
    ) -> None:
        self._run, self._config = run, run.config
        self._evaluator, self._checkpointer = evaluator, checkpointer
        self._monitor, self._reporter = monitor, reporter
        self._profile = profile
        self._num_steps = run.config.training.num_steps
        self._finite = FiniteCheck()
        self._stopping = PreemptionSync(run.mesh)
        self._pace = Pace(run.config.training.batch_size)
        self._mean_iou = float("nan")

    def run(self, state: TrainState, asked_to_stop: Callable[[], bool]) -> TrainingResult:
        """Trains from the state to the last step."""
        first = int(state.step)
        if first < self._num_steps and not self._no_better():
            state = self._run_steps(state, asked_to_stop)
        else:
            early = f" (of {self._num_steps}: it stopped early)" if first < self._num_steps else ""
            self._reporter.message(f"all {first} steps are done already{early}")
            self._mean_iou = self._evaluate(first, state)
        return TrainingResult(self._run.workdir, int(state.step), self._mean_iou)

    def _run_steps(self, state: TrainState, asked_to_stop: Callable[[], bool]) -> TrainState:
        first = int(state.step)
        batches = run_batches(self._run, first)
        batch: Any = next(batches)
        step_function = self._compile(state, batch)
        self._pace.start()
        for step in range(first + 1, self._num_steps + 1):
            with self._trace(step - first):
                state, metrics = step_function(state, batch)
                # The next batch is read while the devices work on this one.
                batch = next(batches) if step < self._num_steps else None
            self._finite.add(step, metrics)
            self._pace.add(metrics)
            stopping = self._stopping(asked_to_stop())
            evaluated = self._after_step(step, state, metrics, stopping)
            if evaluated and self._no_better():
                self._reporter.message(
                    f"stopped early at step {step}: the last {self._config.training.patience} "
                    "validations found no better network (training.patience)"
                )
                break
        return state

    def _no_better(self) -> bool:
        """Returns whether early-stopping patience is exhausted."""
        patience = self._config.training.patience
        if patience < 1:
            return False
        since = validations_since_best(read_rows(self._run.workdir)) if is_first_host() else 0
        return patience <= int(from_first_host(np.int32(since)))

    def _compile(self, state: TrainState, batch: Batch) -> jax.stages.Compiled:
        step_function = make_run_step(self._run, state)
        started = time.perf_counter()
        compiled = step_function.lower(state, batch).compile()
        seconds = time.perf_counter() - started
        wait_for_hosts("compiled")
        for line in describe_start(self._run, state, compiled, seconds):
            self._reporter.message(line)
        return compiled

    def _trace(self, steps_done: int) -> contextlib.AbstractContextManager:
        """Starts and ends the profile at the right steps; otherwise does nothing."""
        if not self._profile or steps_done not in PROFILED_STEPS:
            return contextlib.nullcontext()
        return _profiled_step(self._run.workdir, steps_done)

    def _after_step(
        self, step: int, state: TrainState, metrics: dict[str, jax.Array], stopping: bool
    ) -> bool:
        """Logs, evaluates and saves what is due; returns whether it has evaluated."""
        last = step == self._num_steps
        if last or step % self._config.log_every_steps == 0:
            scalars = self._pace.summarize(metrics, self._num_steps - step)
            self._reporter.training_step(step, self._num_steps, scalars)
            del scalars["seconds_left"]
            self._monitor.write(step, scalars)
        started = time.perf_counter()
        mean_iou = None
        if last or (step % self._config.evaluation.every_steps == 0 and not stopping):
            mean_iou = self._mean_iou = self._evaluate(step, state)
        due = step % self._config.checkpoint.every_steps == 0
        if last or stopping or due or mean_iou is not None:
            # A state is saved only when all numbers up to it were finite.
            self._finite.finish()
            self._checkpointer.save(state, self._info(step), mean_iou)
        if stopping and not last:
            self._checkpointer.wait()
            wait_for_hosts("stopped")
            self._reporter.message(f"stopped at step {step}; the same command goes on from there")
            raise KeyboardInterrupt
        self._pace.pause(time.perf_counter() - started)
        return mean_iou is not None

    def _evaluate(self, step: int, state: TrainState) -> float:
        self._finite.finish()
        confusion = self._evaluator.run(state.evaluated, self._reporter)
        mean_iou = confusion.mean_iou
        accuracy = confusion.pixel_accuracy
        self._monitor.write(
            step, {"validation_mean_iou": mean_iou, "validation_pixel_accuracy": accuracy}
        )
        self._reporter.message(
            f"step {step}: validation mean IoU {mean_iou:.4f}, pixel accuracy {accuracy:.4f}"
        )
        if math.isnan(mean_iou):
            self._reporter.warning(
                f"step {step}: the mean IoU is NaN because the validation images have no labeled "
                "pixel, so neither the best checkpoint nor training.patience can go by it; check "
                "data.validation_split and evaluation.limit"
            )
        warning = curves_part(read_rows(self._run.workdir))
        if warning:
            self._reporter.warning(warning)
        return mean_iou

    def _info(self, step: int) -> dict[str, Any]:
        return {
            "config": self._config.to_dict(),
            "class_names": list(self._run.description.class_names),
            "data_position": {"seed": self._config.seed, "step": step},
        }


@contextlib.contextmanager
def _profiled_step(workdir: pathlib.Path, steps_done: int) -> Iterator[None]:
    if steps_done == PROFILED_STEPS[0]:
        jax.profiler.start_trace(str(workdir / "profile"))
    yield
    if steps_done == PROFILED_STEPS[-1]:
        jax.profiler.stop_trace()
