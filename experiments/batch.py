"""Runs the training and evaluation jobs of an ablation table, locally or through submitit."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import filelock
import jax

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.reporter import LoggingReporter, Reporter
from experiments.cases import Case, make_cases
from experiments.catalog import find_table
from experiments.grid import parse_grid
from experiments.jobs import Job, is_done, make_jobs, run_job
from experiments.presets import PRESETS, Preset, find_preset
from experiments.presets.smoke import SMOKE
from experiments.report import write_reports
from experiments.storage import Request, Storage, open_storage
from experiments.submission import (
    gpu_environments,
    make_executor,
    submit_together,
    use_gpus,
    wait_for,
)
from experiments.table import Table


@dataclasses.dataclass(frozen=True)
class OpenRequest:
    """A request to run a table, with the objects that `open_request` finds for it.

    Attributes:
      request: arguments of the command `experiments.run`.
      table: table to run.
      preset: preset that adapts the table to dataset and machine.
      cases: cases to run. Each row of the table is a case; with --grid, there is one case for each
        row and each combination of values of the grid.
      storage: paths of the files of the preset, and methods that read and write them.
    """

    request: Request
    table: Table
    preset: Preset
    cases: tuple[Case, ...]
    storage: Storage


def open_request(request: Request, workdir: str | pathlib.Path) -> OpenRequest:
    """Finds the table and the preset of a request, and lists the cases to run.

    A case is a row of the table, combined with one value for each field of --grid. This function
    writes no files.

    Args:
      request: arguments of the command `experiments.run`.
      workdir: directory of all training runs, results and reports.

    Raises:
      DeepLabError: the table, the preset or a config field does not exist, a value is illegal,
        --init is given for a preset that runs the table as published, or the workdir is in a
        bucket.
    """
    table, preset = find_table(request.table), find_preset(request.preset)
    if request.init and not preset.scales_down:
        raise DeepLabError(
            f"--init cannot be used with the preset {preset.name}, because its recipes define the "
            "initial weights; omit --init"
        )
    cases = make_cases(table, preset, parse_grid(request.grid), request.init)
    storage = open_storage(workdir, preset.name)
    return OpenRequest(request, table, preset, cases, storage)


def open_requests(workdir: str | pathlib.Path, reporter: Reporter) -> list[OpenRequest]:
    """Reads the stored requests of all presets in a workdir, and applies `open_request` to each.

    Args:
      workdir: directory of all training runs, results and reports.
      reporter: receives a warning for each request that cannot be opened, for example because the
        file of its table was deleted.

    Raises:
      DeepLabError: the workdir is in a bucket.
    """
    opened = []
    for preset in PRESETS:
        storage = open_storage(workdir, preset)
        for name in storage.request_names():
            try:
                opened.append(open_request(storage.read_request(name), workdir))
            except DeepLabError as error:
                reporter.warning(f"{preset}/{name} is skipped: {error}")
    return opened


def run_here(opened: OpenRequest, cases: Sequence[Case], reporter: Reporter) -> None:
    """Trains and evaluates cases in this process, and writes the report after each job.

    A job is a training run with one seed and the evaluations of its network. If a job fails, the
    remaining jobs still run. Jobs that another process is running come last.

    Args:
      opened: request to which the cases belong.
      cases: cases to run. Cases that require the same training run share one job per seed.
      reporter: receives progress events.

    Raises:
      DeepLabError: at least one job failed; raised after the last job. The message states the
        number of failed jobs and the first error.
      KeyboardInterrupt: the run was interrupted; completed training steps are saved.
    """
    reported = _prepare(opened, reporter)
    jobs = _waiting(opened, cases, reporter)
    report = functools.partial(write_reports, reported, reporter)
    failures = _run_jobs(jobs, opened.storage, opened.request.data_dir, reporter, report)
    report(announce=True)
    if failures:
        raise DeepLabError(
            f"{len(failures)} of {len(jobs)} training runs failed; the first is {failures[0]}"
        )


def _run_jobs(
    jobs: Sequence[Job],
    storage: Storage,
    data_dir: str,
    reporter: Reporter,
    after_each: Callable[[], None] = lambda: None,
) -> list[str]:
    """Runs jobs one after the other, and returns one line of text for each failed job.

    A job also fails if its program does not fit into the memory of the device.

    Jobs that another process is running are moved to the end of the queue. When the queue reaches
    such a job again, this process waits until the other process has finished the job or has been
    interrupted, and then runs the parts of the job that are not finished.

    Args:
      jobs: jobs to run.
      storage: results and workdirs of all jobs of a preset.
      data_dir: directory of the prepared datasets.
      reporter: receives progress events.
      after_each: function to call after each job.
    """
    failures: list[str] = []
    moved = set()
    queue = collections.deque(enumerate(jobs, start=1))
    while queue:
        number, job = queue.popleft()
        try:
            if is_done(job, storage):
                # Another process has finished the job since this process was started.
                continue
            reporter.message(f"training {number} of {len(jobs)}: {describe(job)}")
            run_job(job, storage, data_dir, reporter, wait=number in moved)
        except filelock.Timeout:
            reporter.message(
                f"{describe(job)} is moved to the end, because another process is running it or a "
                "training run that it requires"
            )
            moved.add(number)
            queue.append((number, job))
            continue
        except (DeepLabError, jax.errors.JaxRuntimeError) as error:
            # Only the text is kept, because the error refers to the arrays of the failed run. The
            # first line of an error of JAX states the cause.
            text = str(error).partition("\n")[0]
            reporter.warning(f"{describe(job)} failed: {text}")
            failures.append(f"{describe(job)}: {text}")
        after_each()
    return failures


def submit(
    opened: OpenRequest,
    cases: Sequence[Case],
    cluster: str,
    processes: int,
    settings: Sequence[str],
    reporter: Reporter,
) -> None:
    """Submits the unfinished jobs of cases through submitit.

    A job is a training run with one seed and the evaluations of its network. On the cluster
    `local`, the jobs and the GPUs of this machine are divided among `processes` processes. The
    function then waits until all processes have ended, and writes the report. On `slurm`, each job
    is submitted separately.

    Args:
      opened: request to which the cases belong.
      cases: cases to run. Cases that require the same training run share one job per seed.
      cluster: `local` or `slurm`.
      processes: number of local processes; not used on `slurm`.
      settings: settings of submitit's executor, `KEY=VALUE`.
      reporter: receives progress events.

    Raises:
      DeepLabError: submitit is not installed, a setting is invalid, the cluster refuses the jobs,
        or local jobs failed.
    """
    executor = make_executor(cluster, opened.storage.folder / "submissions", settings)
    reported = _prepare(opened, reporter)
    jobs = _waiting(opened, cases, reporter)
    if cluster == "slurm":
        shares, gpus = [[job] for job in jobs], [{}] * len(jobs)
    else:
        shares = [jobs[start::processes] for start in range(min(processes, len(jobs)))]
        gpus = gpu_environments(len(shares))
    work = functools.partial(run_share, storage=opened.storage, data_dir=opened.request.data_dir)
    calls = [
        functools.partial(work, tuple(share), gpus=environment)
        for share, environment in zip(shares, gpus, strict=True)
    ]
    submitted = submit_together(executor, calls)
    for share, handle in zip(shares, submitted, strict=True):
        reporter.message(f"{cluster} job {handle.job_id}: {'; '.join(map(describe, share))}")
    if cluster == "local":
        failures = wait_for(submitted)
        write_reports(reported, reporter, announce=True)
        if failures:
            raise DeepLabError(f"{len(failures)} jobs failed; the first is {failures[0]}")


def run_share(
    jobs: Sequence[Job], storage: Storage, data_dir: str, gpus: Mapping[str, str]
) -> list[str]:
    """Runs jobs one after the other; submitit calls this function in each of its processes.

    Args:
      jobs: jobs to run.
      storage: results and workdirs of all jobs of a preset.
      data_dir: directory of the prepared datasets.
      gpus: argument of `submission.use_gpus`.

    Returns:
      One line of text for each failed job.
    """
    use_gpus(gpus)
    return _run_jobs(jobs, storage, data_dir, LoggingReporter())


def describe(job: Job) -> str:
    """Returns a description of a job, such as `LABEL and 2 more, seed 0`.

    LABEL is the row label of the first case of the job, and 2 is the number of its other cases.
    """
    others = f" and {len(job.cases) - 1} more" if len(job.cases) > 1 else ""
    return f"{job.cases[0].row.label}{others}, seed {job.seed}"


def _waiting(opened: OpenRequest, cases: Sequence[Case], reporter: Reporter) -> list[Job]:
    """Returns the unfinished jobs of cases, and reports the cases that the preset cannot run."""
    for case in cases:
        if case.why_not:
            reporter.message(f"not run: {case.row.label}: {case.why_not}")
    jobs = make_jobs(cases, opened.request.seeds)
    waiting = [job for job in jobs if not is_done(job, opened.storage)]
    if len(waiting) < len(jobs):
        done = len(jobs) - len(waiting)
        reporter.message(f"{done} of {len(jobs)} training runs are already finished")
    return waiting


def _prepare(opened: OpenRequest, reporter: Reporter) -> OpenRequest:
    """Stores a request, and returns it for the report, possibly with a larger number of seeds.

    If the stored request for the same cases has more seeds, this larger number is kept in the
    stored and in the returned request, so that reports contain all results. For the preset
    `smoke`, the function also prepares the dataset `shapes`.
    """
    request, before = opened.request, opened.storage.read_request(opened.request.name)
    same = {"seeds": request.seeds, "data_dir": request.data_dir}
    if before and dataclasses.replace(before, **same) == request:
        request = dataclasses.replace(request, seeds=max(request.seeds, before.seeds))
    opened.storage.write_request(request)
    if opened.preset is SMOKE:
        _prepare_shapes(opened.request.data_dir, reporter)
    return dataclasses.replace(opened, request=request)


def _prepare_shapes(data_dir: str, reporter: Reporter) -> None:
    """Prepares the dataset `shapes`, unless it exists."""
    from deeplab_jax.data.builders.registry import BUILDERS
    from deeplab_jax.data.preparation import prepare

    directory = as_path(data_dir)
    if not (directory / "shapes").exists():
        make = functools.partial(BUILDERS["shapes"], data_dir=directory, reporter=reporter)
        prepare(make, reporter=reporter)
