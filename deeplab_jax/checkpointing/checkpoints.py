"""The Orbax checkpoints of a workdir: which are kept and which is meant."""

import math
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from etils import epath

from deeplab_jax.checkpointing.manifest import COMMITTED, damage, write_manifest
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import absolute

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

CHECKPOINTS, SET_ASIDE = "checkpoints", "damaged_checkpoints"
# Items of a checkpoint. Variables stand alone, so that inference reads no optimiser state.
VARIABLES, EMA, OPTIMIZER, INFO = "variables", "ema", "optimizer", "info"
# Written by Orbax, by which it tells the best.
METRICS = "metrics"
# The newest can be damaged: then there is the one before it.
KEPT = 2


def _score(metrics: dict[str, float]) -> float:
    """Returns what the best checkpoint has most of; a NaN, which sorts anyhow, is the least."""
    mean_iou = metrics["mean_iou"]
    return -math.inf if math.isnan(mean_iou) else mean_iou


def open_checkpoints(workdir: pathlib.Path, *, read_only: bool = True) -> "ocp.CheckpointManager":
    """Opens the checkpoints of a workdir.

    The last two and the best by `mean_iou` are kept; saving is asynchronous.

    Args:
      workdir: of the training run.
      read_only: False only for the run itself, which also clears what a killed save left behind.
    """
    # Imported late: files are looked at, and model directories read, without Orbax.
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

    directory = checkpoints_directory(workdir)
    if read_only:
        options = ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, create=False, best_fn=_score
        )
        return ocp.CheckpointManager(directory, options=options)
    keep = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(KEPT),
            checkpoint_managers.BestN(
                get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        best_fn=_score,
        cleanup_tmp_directories=True,
        # Called by one process after all have written, before the checkpoint gets its name: so
        # the manifest is there with the checkpoint or not at all.
        async_options=ocp.AsyncOptions(
            post_finalization_callback=lambda: _write_manifests(directory)
        ),
    )
    return ocp.CheckpointManager(directory, options=options)


def checkpoints_directory(workdir: pathlib.Path) -> epath.Path:
    """Returns where the checkpoints of a workdir are, which may be in a bucket."""
    return absolute(workdir) / CHECKPOINTS


def _write_manifests(directory: epath.Path) -> None:
    """Writes the manifest of the checkpoint that is being saved: the one not committed yet."""
    for path in directory.iterdir():
        # Orbax adds to the name until the commit, except in buckets, where there is no renaming.
        unfinished = path.name.partition(".")[0].isdecimal() and not (path / COMMITTED).exists()
        if unfinished and path.is_dir():
            write_manifest(path)


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps whose checkpoints are there, good or not, in order."""
    directory = checkpoints_directory(workdir)
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def checkpoint_damage(workdir: pathlib.Path, step: int, *items: str) -> str | None:
    """Returns what is wrong with a checkpoint, None where all is as it was written.

    Args:
      workdir: of the training run.
      step: of the checkpoint.
      *items: its parts to look at; none: all.
    """
    return damage(checkpoints_directory(workdir) / str(step), items or None)


def set_damaged_aside(workdir: pathlib.Path, hear: Callable[[str], None]) -> None:
    """Moves damaged checkpoints out of the way, so that the newest good one is the last.

    Args:
      workdir: of a training run that is to go on.
      hear: is told of each.

    Raises:
      DeepLabError: all are damaged; then all stay where they are.
    """
    steps = saved_steps(workdir)
    found = {step: checkpoint_damage(workdir, step) for step in steps}
    damaged = {step: what for step, what in found.items() if what}
    if damaged and len(damaged) == len(steps):
        raise DeepLabError(
            f"no checkpoint in {checkpoints_directory(workdir)} is good: "
            + "; ".join(f"{step}: {what}" for step, what in damaged.items())
            + "; restore one from a copy, or remove them to begin anew"
        )
    for step, what in damaged.items():
        target = _free_name(absolute(workdir) / SET_ASIDE / str(step))
        target.parent.mkdir(parents=True, exist_ok=True)
        (checkpoints_directory(workdir) / str(step)).rename(target)
        hear(f"the checkpoint of step {step} is damaged ({what}); it was moved to {target}")


def _free_name(path: epath.Path) -> epath.Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def choose_step(manager: "ocp.CheckpointManager", which: str) -> int:
    """Returns the step of the checkpoint `which`: `best`, `last` or a step that is there.

    Raises:
      DeepLabError: there is none such; says which there are.
    """
    steps = sorted(manager.all_steps())
    if not steps:
        raise DeepLabError(f"{manager.directory} holds no checkpoint yet")
    if which == "last":
        return steps[-1]
    if which == "best":
        # Before the first evaluation none is best.
        best = manager.best_step()
        return steps[-1] if best is None else best
    if which.isdecimal() and int(which) in steps:
        return int(which)
    raise DeepLabError(
        f"no checkpoint {which!r} in {manager.directory}; "
        f"legal: best, last, {', '.join(map(str, steps))}"
    )
