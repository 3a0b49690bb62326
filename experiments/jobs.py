"""Jobs: each is one training run, and all evaluations of its network that cases require."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator

import filelock
import jax
from ml_collections import ConfigDict

import deeplab_jax
from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.registry import BUILDERS
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import evaluate
from deeplab_jax.inference.pseudo_labels import OPTIONS, write_pseudo_labels
from deeplab_jax.parallel import make_mesh
from deeplab_jax.reporter import Reporter
from experiments.cases import Case, ResolvedTraining
from experiments.storage import Storage, write_json


@dataclasses.dataclass(frozen=True)
class Job:
    """A training run with one seed, and the evaluations of the trained network.

    Attributes:
      training: training run, without the seed.
      seed: seed of the training run.
      cases: cases that evaluate the network, one per inference strategy.
    """

    training: ResolvedTraining
    seed: int
    cases: tuple[Case, ...]


def make_jobs(cases: Iterable[Case], seeds: int) -> list[Job]:
    """Returns one job per distinct training run and seed, ordered by seed."""
    by_training: dict[ResolvedTraining, dict[str, Case]] = {}
    for case in cases:
        if case.training is not None:
            by_training.setdefault(case.training, {}).setdefault(case.strategy, case)
    return [
        Job(training, seed, tuple(strategies.values()))
        for seed in range(seeds)
        for training, strategies in by_training.items()
    ]


def is_done(job: Job, storage: Storage) -> bool:
    """Returns whether the results of all evaluations of a job are stored."""
    return all(storage.read_result(case, job.seed) is not None for case in job.cases)


def run_job(job: Job, storage: Storage, data_dir: str, reporter: Reporter, *, wait: bool) -> None:
    """Runs the parts of a job that are not finished; resumes an interrupted training run.

    The job is locked against other processes until its evaluations are finished.

    Args:
      job: job to run.
      storage: results and workdirs of all jobs of a preset. Other processes may use the same files
        at the same time.
      data_dir: directory of the prepared datasets.
      reporter: receives progress events.
      wait: whether to wait if another process has locked the job, or a training run that the job
        requires.

    Raises:
      filelock.Timeout: another process has locked one of them, and `wait` is False.
      DeepLabError: training or an evaluation failed, or the machine has too few devices.
      KeyboardInterrupt: the training run received SIGINT or SIGTERM; its state has been saved.
    """
    failures = []
    with _locked(job.training, job.seed, storage, reporter, wait) as workdir:
        _complete(job.training, job.seed, storage, data_dir, reporter, wait)
        for case in job.cases:
            if storage.read_result(case, job.seed) is None:
                reporter.message(f"evaluating: {case.row.label}, seed {job.seed}")
                try:
                    _evaluate(case, workdir, data_dir, storage, job.seed, reporter)
                except DeepLabError as error:
                    # The other cases of this job are still evaluated.
                    failures.append(f"{case.row.label}: {error}")
    # The next job does not use the compiled programs of this one, so their memory is freed.
    jax.clear_caches()
    if failures:
        raise DeepLabError("; ".join(failures))


@contextlib.contextmanager
def _locked(
    training: ResolvedTraining, seed: int, storage: Storage, reporter: Reporter, wait: bool
) -> Iterator[pathlib.Path]:
    """Locks a training run against other processes, and yields its workdir.

    Raises:
      filelock.Timeout: another process has locked the run, and `wait` is False.
    """
    workdir = storage.training(training, seed)
    workdir.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{workdir}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise
        reporter.message(f"waiting for another process that works in {workdir}")
        lock.acquire()
    try:
        yield workdir
    finally:
        lock.release()


def _trained(
    training: ResolvedTraining,
    seed: int,
    storage: Storage,
    data_dir: str,
    reporter: Reporter,
    wait: bool,
) -> pathlib.Path:
    """Returns the workdir of a training run; first completes the run if it is not finished."""
    # The lock of a finished run is not required: another process may hold it for evaluations.
    if storage.read_training(training, seed) is None:
        with _locked(training, seed, storage, reporter, wait):
            _complete(training, seed, storage, data_dir, reporter, wait)
    return storage.training(training, seed)


def _complete(
    training: ResolvedTraining,
    seed: int,
    storage: Storage,
    data_dir: str,
    reporter: Reporter,
    wait: bool,
) -> None:
    """Completes a training run, which this process has locked, if it is not finished.

    The run `training.after`, which provides the initial weights, is completed before it.
    """
    if storage.read_training(training, seed) is not None:
        return
    config = training.new_config()
    config.seed, config.data.data_dir = seed, data_dir
    if training.after:
        before = _trained(training.after, seed, storage, data_dir, reporter, wait)
        config.training.init_from = str(before)
    if training.unlabeled:
        _use_pseudo_labels(config, training, seed, storage, reporter, wait)
    mesh = training.devices and make_mesh(_devices(training.devices))
    workdir = storage.training(training, seed)
    deeplab_jax.train(config, workdir, reporter=reporter, mesh=mesh)
    storage.write_training(training, seed)


def _use_pseudo_labels(
    config: ConfigDict,
    training: ResolvedTraining,
    seed: int,
    storage: Storage,
    reporter: Reporter,
    wait: bool,
) -> None:
    """Changes the dataset of a config, in place, so that training also uses pseudo-labels.

    The images of the split `training.unlabeled`, with their pseudo-labels, are added to the images
    of the training split.

    The pseudo-labels are predictions of the network of `training.teacher`, which is trained first
    if necessary.
    """
    data = config.data
    teacher = _trained(training.teacher, seed, storage, data.data_dir, reporter, wait)
    train, val, unlabeled = (
        open_dataset(data.name, data.data_dir, split, class_names=data.class_names)
        for split in (data.train_split, data.validation_split, training.unlabeled)
    )
    predictor = deeplab_jax.load(teacher, checkpoint="last", reporter=reporter)
    folder = storage.training(training, seed).with_suffix(".pseudo")
    write_pseudo_labels(
        predictor.with_options(OPTIONS),
        {"train": train, "val": val},
        {unlabeled[at]["image_id"]: unlabeled.encoded(at)[0] for at in range(len(unlabeled))},
        folder / "labels",
        reporter=reporter,
    )
    make = functools.partial(
        BUILDERS["folder"], source=folder / "labels", data_dir=folder, reporter=reporter
    )
    prepare(make, overwrite=True, reporter=reporter)
    data.name, data.data_dir = "folder", str(folder)
    data.train_split, data.validation_split = "train", "val"


def _devices(count: int) -> list[jax.Device]:
    found = jax.devices()
    if count > len(found):
        raise DeepLabError(
            f"the row requires {count} devices, but this machine has {len(found)}; select other "
            "rows with --rows"
        )
    return found[:count]


def _evaluate(
    case: Case,
    workdir: pathlib.Path,
    data_dir: str,
    storage: Storage,
    seed: int,
    reporter: Reporter,
) -> None:
    config = case.training.config
    dataset = open_dataset(
        config.data.name,
        data_dir,
        config.data.validation_split,
        class_names=config.data.class_names,
    )
    # The papers evaluate the network after the last training step.
    predictor = deeplab_jax.load(workdir, checkpoint="last", reporter=reporter)
    metrics = evaluate(
        predictor,
        dataset,
        options=case.options,
        trimap_widths=() if case.row.trimap is None else (case.row.trimap,),
        size=config.evaluation.size,
        batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        reporter=reporter,
    )
    write_json(storage.result(case.training, seed, case.strategy), metrics)
