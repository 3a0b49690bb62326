"""Trains a network: opens the datasets, locks the workdir, and writes metrics and checkpoints."""

import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import checkpointing
from deeplab_jax import config as configs
from deeplab_jax.data.datasets import fingerprint
from deeplab_jax.evaluation import Evaluator
from deeplab_jax.files import as_path
from deeplab_jax.parallel import (
    check_hosts_agree,
    is_first_host,
    make_mesh,
    wait_for_hosts,
    watchdog,
)
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training import workdir as workdirs
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.goodput import Timeline
from deeplab_jax.training.hooks import (
    draw_pictures,
)
from deeplab_jax.training.initialization import initial_state
from deeplab_jax.training.lock import workdir_lock
from deeplab_jax.training.loop import SAVING_FACTOR, Logs, Loop, TrainingResult
from deeplab_jax.training.setup import (
    Run,
    Source,
    assemble,
)
from deeplab_jax.training.traces import Traces
from deeplab_jax.training.writers import Monitor, check_writers


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether the process received SIGINT or SIGTERM.

    The first signal is only recorded, so that a checkpoint can be saved. The second signal has its
    usual effect. Python receives signals only in the main thread. In other threads, the function
    always returns False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    # A handler that was not installed from Python is reported as None, and cannot be restored.
    before = {
        number: signal.getsignal(number) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }

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


_LOGGING = LoggingReporter()


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
    started: float | None = None,
) -> TrainingResult:
    """Trains a network, or resumes an interrupted run.

    If the workdir has checkpoints, training resumes from the last one. Otherwise, the variables are
    initialized from the model `training.init_from`, or randomly.

    Args:
      config: config of the run, see deeplab_jax/config_fields.py.
      workdir: directory for checkpoints, metrics and pictures. A run can only be resumed with the
        config that it was started with, except for the fields in `config.FREE_FIELDS`.
      train, validation: name of a prepared dataset, a `Dataset`, or a pair (images, masks). Images
        are uint8 or uint16 [N, H, W, C]; uint8 with C = 3 is RGB. Masks are integers [N, H, W].
        None: the dataset of the config.
      batch_size: number of images per batch (default: `config.training.batch_size`).
      epochs: number of training epochs (default: `config.training.num_steps` steps).
      reporter: receives progress events.
      mesh: device mesh (default: all devices of the job, divided as in `config.parallel`).
      profile: whether to write a trace of a few steps to `workdir/profile`.
      adjust: function that returns a changed copy of the run, for example with another optimizer.
        To resume a run, pass the same function; a run with other `Run.adjustments` is refused.
      started: start of the process in seconds since 1970, used for goodput (default: now).

    Raises:
      DeepLabError: the config, a dataset or the workdir is invalid, or the loss or the gradient
        norm became infinite or NaN. The last checkpoint is kept.
      KeyboardInterrupt: the run received SIGINT or SIGTERM; its state has been saved.
    """
    workdir, started, reporter = as_path(workdir), started or time.time(), reporter or _LOGGING
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
    check_writers(run.config.training.writers)
    evaluator = _make_evaluator(run)
    lock = contextlib.nullcontext(lambda: None)
    with workdir_lock(workdir, reporter) if is_first_host() else lock as check_lock:
        _open_workdir(run, evaluator)
        return _train(run, evaluator, reporter, profile, check_lock, started)


def _train(
    run: Run,
    evaluator: Evaluator,
    reporter: Reporter,
    profile: bool,
    check_lock: Callable[[], None],
    started: float,
) -> TrainingResult:
    """Trains in a workdir that this job has locked."""
    workdir = run.workdir
    timeline = Timeline(workdir, started) if is_first_host() else None
    with (
        timeline or contextlib.nullcontext(),
        interruption() as asked_to_stop,
        watchdog(run.config.training.watchdog_seconds) as report_progress,
        Checkpointer(workdir, reporter) as checkpointer,
        Traces(workdir, profile, reporter) as traces,
    ):

        def progress(doing: str, factor: float = 1) -> None:
            check_lock()
            report_progress(doing, factor)

        progress("reading the initial variables", SAVING_FACTOR)
        state = initial_state(run, checkpointer, reporter)
        monitor = _monitor(run, int(state.step), reporter) if is_first_host() else None
        with monitor or contextlib.nullcontext():
            logs = Logs(monitor, timeline, reporter)
            loop = Loop(run, evaluator, checkpointer, logs, traces, asked_to_stop, progress)
            result = loop.train(state)
        progress("saving the last checkpoint", SAVING_FACTOR)
    draw_pictures(run.workdir, run.validation, reporter)
    if timeline is None:
        return result
    found = timeline.goodput()
    reporter.message(str(found))
    return dataclasses.replace(result, goodput=found)


def _monitor(run: Run, step: int, reporter: Reporter) -> Monitor:
    fields = dict(configs.flatten(run.config))
    return Monitor(run.workdir, step, run.config.training.writers, fields, reporter)


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
    """Checks that all hosts have the same config, datasets, versions and mesh, and opens a workdir.

    Process 0 writes the config, the data fingerprints, the adjustments, the description of the
    network and the manifest. All processes wait until the files are written.
    """
    data = {"train": fingerprint(run.train), "validation": fingerprint(run.validation)}
    check_hosts_agree(_facts(run, data))
    if is_first_host():
        workdirs.claim(run.workdir, run.config, data, run.adjustments)
        description = dataclasses.replace(run.description, inference_size=evaluator.size)
        checkpointing.write_description(run.workdir, description)
        workdirs.write_manifest(run.workdir, run.mesh)
    wait_for_hosts("workdir")


# Config fields that may differ between hosts.
LOCAL_FIELDS = ("data.data_dir", "data.workers")


def _facts(run: Run, data: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the values that must be equal on all hosts.

    These are all config fields except `LOCAL_FIELDS`, the fingerprints of the datasets, the
    adjustments, the package versions and the shape of the mesh.
    """
    fields = dict(configs.flatten(run.config))
    return {
        **{name: value for name, value in fields.items() if name not in LOCAL_FIELDS},
        **{f"the {role} data": facts for role, facts in data.items()},
        "the adjustments": run.adjustments,
        **workdirs.versions(),
        "the mesh": dict(run.mesh.shape),
    }
