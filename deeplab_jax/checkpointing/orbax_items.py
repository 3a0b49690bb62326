"""Saving and restoring by Orbax: the only module that imports it.

Orbax 1.0 moves its V1 interface to the top level, so another major version changes this file alone.
Files are checked, and model directories read, without Orbax (`saved_states`, `store`).
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from deeplab_jax.checkpointing.saved_states import (
    COMMITTED,
    INFO,
    MARK,
    checkpoints_directory,
    write_manifest,
)
from deeplab_jax.errors import DeepLabError

# The checkpoint before the newest is used if the newest is damaged.
KEPT = 2


def _score(metrics: dict[str, float]) -> float:
    """Returns the score that the best checkpoint maximizes; NaN counts as the lowest."""
    mean_iou = metrics["mean_iou"]
    return -math.inf if math.isnan(mean_iou) else mean_iou


def open_checkpoints(workdir: pathlib.Path, *, read_only: bool = True) -> ocp.CheckpointManager:
    """Opens the checkpoints of a workdir.

    The last two and the best by `mean_iou` are kept; saving is asynchronous.

    Args:
      workdir: workdir of the training run.
      read_only: False for the training run alone, which also removes incomplete checkpoints.
    """
    directory = checkpoints_directory(workdir)
    if read_only:
        options = ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, create=False, best_fn=_score
        )
        return ocp.CheckpointManager(directory, options=options)
    best = checkpoint_managers.BestN(
        get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
    )
    latest = checkpoint_managers.LatestN(KEPT)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
        best_fn=_score,
        cleanup_tmp_directories=True,
        # Called by one process after all have written and before the checkpoint is renamed, so
        # that the checkpoint never exists without its manifest.
        async_options=ocp.AsyncOptions(
            post_finalization_callback=lambda: _write_manifests(directory)
        ),
    )
    return ocp.CheckpointManager(directory, options=options)


def choose_step(manager: ocp.CheckpointManager, which: str) -> int:
    """Returns the step of a checkpoint: `best`, `last`, or an existing step.

    Raises:
      DeepLabError: there is no such checkpoint; names the existing ones.
    """
    steps = sorted(manager.all_steps())
    if not steps:
        raise DeepLabError(f"{manager.directory} holds no checkpoint yet")
    if which == "last":
        return steps[-1]
    if which == "best":
        # There is no best checkpoint before the first evaluation.
        best = manager.best_step()
        return steps[-1] if best is None else best
    if which.isdecimal() and int(which) in steps:
        return int(which)
    raise DeepLabError(
        f"no checkpoint {which!r} in {manager.directory}; "
        f"legal: best, last, {', '.join(map(str, steps))}"
    )


def _write_manifests(directory: epath.Path) -> None:
    """Writes the manifest of the checkpoint that is not committed yet."""
    for path in directory.iterdir():
        # Orbax appends to the name until the commit, except in buckets, which cannot rename.
        unfinished = path.name.partition(".")[0].isdecimal() and not (path / COMMITTED).exists()
        if unfinished and path.is_dir():
            write_manifest(path)


def save_items(
    manager: ocp.CheckpointManager,
    step: int,
    trees: Mapping[str, Any],
    info: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
    *,
    again: bool = False,
) -> None:
    """Starts saving a checkpoint in the background, after the save before on all processes.

    Args:
      manager: open for writing.
      step: number of the training step.
      trees: trees of arrays by name of the item.
      info: JSON-ready content of the item `info`.
      metrics: of the validation at this step; None where there was none.
      again: replaces the checkpoint of this step.
    """
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    items[INFO] = ocp.args.JsonSave(info)
    if again:
        manager.wait_until_finished()
        manager.delete(step)
    manager.save(
        step,
        args=ocp.args.Composite(**items),
        metrics=metrics,
        custom_metadata=MARK,
        force=again,
    )


def restore_items(
    manager: ocp.CheckpointManager, step: int | None, like: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Returns items of a checkpoint, with the shapes and shardings of the trees in `like`."""
    items = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
    return manager.restore(step, args=ocp.args.Composite(**items))


def save_tree(directory: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays into a directory that does not exist yet."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory, tree)
