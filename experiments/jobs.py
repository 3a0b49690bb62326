"""Jobs, each of which is a training run with the evaluations of the trained network."""

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
      cases: cases for which the network is evaluated, one for each `Case.strategy`.
    """

    training: ResolvedTraining
    seed: int
    cases: tuple[Case, ...]


def make_jobs(cases: Iterable[Case], seeds: int) -> list[Job]:
    """Returns one job per distinct training run and seed, ordered by seed."""
    by_key: dict[str, dict[str, Case]] = {}
    for case in cases:
        if case.training is not None:
            # Configs with different texts can have the same key and then share a workdir.
            by_key.setdefault(case.training.key, {}).setdefault(case.strategy, case)
    together = [tuple(strategies.values()) for strategies in by_key.values()]
    return [Job(cases[0].training, seed, cases) for seed in range(seeds) for cases in together]


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
      wait: whether to wait while another process has locked the job or a training run that the
        job requires; otherwise, filelock.Timeout is raised.

    Raises:
      filelock.Timeout: `wait` is False, and another process has locked the job or a training run
        that the job requires.
      DeepLabError: training or an evaluation failed, or the machine has too few devices.
      KeyboardInterrupt: the training run received SIGINT or SIGTERM; its state has been saved.
    """
    runs = _Runs(job.seed, storage, data_dir, reporter, wait)
    failures = []
    with runs.locked(job.training) as workdir:
        runs.complete(job.training)
        for case in job.cases:
            if storage.read_result(case, job.seed) is None:
                reporter.message(f"evaluating: {case.row.label}, seed {job.seed}")
                try:
                    runs.evaluate(case, workdir)
                except DeepLabError as error:
                    # The other cases of this job are still evaluated.
                    failures.append(f"{case.row.label}: {error}")
    # The next job does not use the compiled programs of this one, so their memory is freed.
    jax.clear_caches()
    if failures:
        raise DeepLabError("; ".join(failures))


@dataclasses.dataclass(frozen=True)
class _Runs:
    """Completes and evaluates the training runs that a job requires.

    Attributes:
      seed: seed of the job, which all its training runs have.
      storage, data_dir, reporter, wait: arguments of `run_job`.
    """

    seed: int
    storage: Storage
    data_dir: str
    reporter: Reporter
    wait: bool

    @contextlib.contextmanager
    def locked(self, training: ResolvedTraining) -> Iterator[pathlib.Path]:
        """Locks a training run against other processes, and yields its workdir.

        Raises:
          filelock.Timeout: another process has locked the run, and `wait` is False.
        """
        workdir = self.storage.training(training, self.seed)
        workdir.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{workdir}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if not self.wait:
                raise
            self.reporter.message(f"waiting for another process that works in {workdir}")
            lock.acquire()
        try:
            yield workdir
        finally:
            lock.release()

    def completed(self, training: ResolvedTraining) -> pathlib.Path:
        """Returns the workdir of a training run; first completes the run if it is not finished."""
        # The lock of a finished run is not required: another process may hold it for evaluations.
        if self.storage.read_training(training, self.seed) is None:
            with self.locked(training):
                self.complete(training)
        return self.storage.training(training, self.seed)

    def complete(self, training: ResolvedTraining) -> None:
        """Completes a training run if it is not finished; this process must have locked the run.

        The run `training.after`, which provides the initial weights, is completed first.
        """
        if self.storage.read_training(training, self.seed) is not None:
            return
        config = training.new_config()
        config.seed, config.data.data_dir = self.seed, self.data_dir
        if training.after:
            config.training.init_from = str(self.completed(training.after))
        if training.unlabeled:
            self._use_pseudo_labels(config, training)
        devices = _devices(training, config, self.reporter)
        mesh = None if devices is None else make_mesh(devices)
        workdir = self.storage.training(training, self.seed)
        deeplab_jax.train(config, workdir, reporter=self.reporter, mesh=mesh)
        self.storage.write_training(training, self.seed)

    def _use_pseudo_labels(self, config: ConfigDict, training: ResolvedTraining) -> None:
        """Changes the dataset of a config, in place, so that training also uses pseudo-labels.

        The images of the split `training.unlabeled`, with their pseudo-labels, are added to the
        images of the training split. The pseudo-labels are predictions of the network of
        `training.teacher`, which is trained first if necessary.
        """
        data = config.data
        teacher = self.completed(training.teacher)
        train, val, unlabeled = (
            open_dataset(data.name, data.data_dir, split, class_names=data.class_names)
            for split in (data.train_split, data.validation_split, training.unlabeled)
        )
        predictor = deeplab_jax.load(teacher, checkpoint="last", reporter=self.reporter)
        folder = self.storage.training(training, self.seed).with_suffix(".pseudo")
        write_pseudo_labels(
            predictor.with_options(OPTIONS),
            {"train": train, "val": val},
            {unlabeled[at]["image_id"]: unlabeled.encoded(at)[0] for at in range(len(unlabeled))},
            folder / "labels",
            reporter=self.reporter,
        )
        make = functools.partial(
            BUILDERS["folder"], source=folder / "labels", data_dir=folder, reporter=self.reporter
        )
        prepare(make, overwrite=True, reporter=self.reporter)
        data.name, data.data_dir = "folder", str(folder)
        data.train_split, data.validation_split = "train", "val"

    def evaluate(self, case: Case, workdir: pathlib.Path) -> None:
        """Evaluates the network of a finished training run, and stores the metrics."""
        config = case.training.config
        dataset = open_dataset(
            config.data.name,
            self.data_dir,
            config.data.validation_split,
            class_names=config.data.class_names,
        )
        # The papers evaluate the network after the last training step.
        predictor = deeplab_jax.load(workdir, checkpoint="last", reporter=self.reporter)
        metrics = evaluate(
            predictor,
            dataset,
            options=case.options,
            trimap_widths=() if case.row.trimap is None else (case.row.trimap,),
            size=config.evaluation.size,
            batch_size=config.evaluation.batch_size,
            workers=config.data.workers,
            reporter=self.reporter,
        )
        write_json(self.storage.result(case.training, self.seed, case.strategy), metrics)


def _devices(
    training: ResolvedTraining, config: ConfigDict, reporter: Reporter
) -> list[jax.Device] | None:
    """Returns the devices of a training run; None: all devices, divided as in the config.

    If the row does not state a number of devices, and one process has more devices than the batch
    can be divided among, only some of them are used.
    """
    found, count = jax.devices(), training.devices
    if count is None:
        together = config.training.batch_size // config.training.accumulation_steps
        count = max(n for n in range(1, len(found) + 1) if together % n == 0)
        parallel = config.parallel
        whole = count == len(found) or parallel.data != -1 or parallel.spatial != 1
        if whole or jax.process_count() > 1:
            return None
        reporter.message(
            f"{count} of {len(found)} devices are used, because {together} images cannot be "
            f"divided among {len(found)} devices"
        )
    if count > len(found):
        raise DeepLabError(
            f"the row requires {count} devices, but this machine has {len(found)}; select other "
            "rows with --rows"
        )
    return found[:count]
