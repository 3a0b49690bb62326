"""Runs the jobs of a request: here, one after the other, or through submitit."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import LoggingReporter, Reporter
from experiments.cases import Case, make_cases
from experiments.catalog import find_table
from experiments.grid import parse_grid
from experiments.jobs import Job, is_done, make_jobs, run_job
from experiments.presets import PRESETS, Preset, find_preset
from experiments.presets.smoke import SMOKE
from experiments.report import write_reports
from experiments.storage import Request, Storage
from experiments.table import Table


@dataclasses.dataclass(frozen=True)
class OpenRequest:
    """A request with all that it names.

    Attributes:
      request: as it was given.
      table, preset: found.
      cases: every row of the table, with the grid's points.
      storage: of the preset.
    """

    request: Request
    table: Table
    preset: Preset
    cases: tuple[Case, ...]
    storage: Storage


def open_request(request: Request, workdir: str | pathlib.Path) -> OpenRequest:
    """Finds what a request names; nothing is written.

    Raises:
      DeepLabError: something is not there, or a value is illegal.
    """
    table, preset = find_table(request.table), find_preset(request.preset)
    if request.init and not preset.scales_down:
        raise DeepLabError("--init is of the small presets; recipes know what they start from")
    cases = make_cases(table, preset, parse_grid(request.grid), request.init)
    storage = Storage(pathlib.Path(workdir) / preset.name)
    return OpenRequest(request, table, preset, cases, storage)


def open_requests(workdir: str | pathlib.Path) -> list[OpenRequest]:
    """Returns every request that was run in a workdir."""
    found = (Storage(pathlib.Path(workdir) / name) for name in PRESETS)
    return [open_request(one, workdir) for storage in found for one in storage.requests()]


def run_here(opened: OpenRequest, cases: Sequence[Case], reporter: Reporter) -> None:
    """Runs the jobs of some rows in this process, and writes the report after each.

    A job that fails does not stop the others.

    Raises:
      DeepLabError: jobs failed; says how many, and why the first did.
      KeyboardInterrupt: the run was asked to stop, and what was done is saved.
    """
    _prepare(opened, reporter)
    jobs = _waiting(opened, cases, reporter)
    failures = []
    for number, job in enumerate(jobs, start=1):
        reporter.message(f"training {number} of {len(jobs)}: {describe(job)}")
        try:
            run_job(job, opened.storage, opened.request.data_dir, reporter)
        except DeepLabError as error:
            reporter.warning(f"{describe(job)} failed: {error}")
            failures.append((job, error))
        write_reports(opened, reporter)
    write_reports(opened, reporter, announce=True)
    if failures:
        job, error = failures[0]
        raise DeepLabError(f"{len(failures)} of {len(jobs)} failed; {describe(job)}: {error}")


def submit(
    opened: OpenRequest,
    cases: Sequence[Case],
    cluster: str,
    processes: int,
    settings: Sequence[str],
    reporter: Reporter,
) -> None:
    """Hands the jobs of some rows to submitit, and waits for local ones.

    Args:
      opened: what was asked for.
      cases: the rows.
      cluster: `local` or `slurm`.
      processes: how many share the jobs; on SLURM every job is its own.
      settings: `KEY=VALUE` of submitit's executor.
      reporter: receives the jobs.

    Raises:
      DeepLabError: submitit is not installed, a setting is no KEY=VALUE, or local jobs failed.
    """
    from experiments.submission import make_executor, wait_for

    executor = make_executor(cluster, opened.storage.folder / "submissions", settings)
    _prepare(opened, reporter)
    jobs = _waiting(opened, cases, reporter)
    shares = [jobs[start::processes] for start in range(min(processes, len(jobs)))]
    if cluster == "slurm":
        shares = [[job] for job in jobs]
    work = functools.partial(run_share, storage=opened.storage, data_dir=opened.request.data_dir)
    with executor.batch():
        submitted = [executor.submit(work, tuple(share)) for share in shares]
    for share, handle in zip(shares, submitted, strict=True):
        reporter.message(f"{cluster} job {handle.job_id}: {'; '.join(map(describe, share))}")
    if cluster == "local":
        failures = wait_for(submitted)
        write_reports(opened, reporter, announce=True)
        if failures:
            raise DeepLabError(f"{len(failures)} of {len(shares)} processes failed: {failures[0]}")


def run_share(jobs: Sequence[Job], storage: Storage, data_dir: str) -> list[str]:
    """Runs jobs in a submitted process; returns why some failed."""
    failures = []
    for job in jobs:
        try:
            run_job(job, storage, data_dir, LoggingReporter())
        except DeepLabError as error:
            failures.append(f"{describe(job)}: {error}")
    return failures


def describe(job: Job) -> str:
    """Returns a job in a few words."""
    others = f" and {len(job.cases) - 1} more" if len(job.cases) > 1 else ""
    return f"{job.cases[0].row.label}{others}, seed {job.seed}"


def _waiting(opened: OpenRequest, cases: Sequence[Case], reporter: Reporter) -> list[Job]:
    """Returns the jobs that are not done, and reports rows that will not be run."""
    for case in cases:
        if case.why_not:
            reporter.message(f"not run: {case.row.label}: {case.why_not}")
    jobs = make_jobs(cases, opened.request.seeds)
    waiting = [job for job in jobs if not is_done(job, opened.storage)]
    if len(waiting) < len(jobs):
        reporter.message(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings are done already")
    return waiting


def _prepare(opened: OpenRequest, reporter: Reporter) -> None:
    """Notes the request, and draws the data of the preset that needs none from elsewhere."""
    opened.storage.write_request(opened.request)
    if opened.preset is not SMOKE:
        return
    from deeplab_jax.data.builders.registry import BUILDERS
    from deeplab_jax.data.preparation import prepare

    data_dir = opened.request.data_dir
    if not (pathlib.Path(data_dir) / "shapes").exists():
        make = functools.partial(BUILDERS["shapes"], data_dir=data_dir, reporter=reporter)
        prepare(make, reporter=reporter)
