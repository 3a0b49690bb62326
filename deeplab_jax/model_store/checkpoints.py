"""The Orbax checkpoints of a workdir: which are kept and which is meant."""

import pathlib

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from deeplab_jax.errors import DeepLabError

CHECKPOINTS = "checkpoints"
# Items of a checkpoint. Variables stand alone, so that inference reads no optimiser state.
VARIABLES, EMA, OPTIMIZER, INFO = "variables", "ema", "optimizer", "info"


def _score(metrics: dict[str, float]) -> float:
    return metrics["mean_iou"]


def open_checkpoints(workdir: pathlib.Path, *, read_only: bool = True) -> ocp.CheckpointManager:
    """Opens the checkpoints of a workdir.

    The last one and the best by `mean_iou` are kept; saving is asynchronous.

    Args:
      workdir: of the training run.
      read_only: False only for the run itself, which also clears what a killed save left behind.
    """
    directory = pathlib.Path(workdir).absolute() / CHECKPOINTS
    if read_only:
        options = ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, create=False, best_fn=_score
        )
        return ocp.CheckpointManager(directory, options=options)
    keep = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(1),
            checkpoint_managers.BestN(
                get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep, best_fn=_score, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(directory, options=options)


def choose_step(manager: ocp.CheckpointManager, which: str) -> int:
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
