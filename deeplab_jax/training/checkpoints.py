"""Saving and restoring the state of a run."""

import pathlib
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

from deeplab_jax.errors import DeepLabError
from deeplab_jax.model_store.checkpoints import (
    EMA,
    INFO,
    OPTIMIZER,
    VARIABLES,
    open_checkpoints,
    saved_steps,
    set_damaged_aside,
)
from deeplab_jax.model_store.manifest import MARK
from deeplab_jax.parallel import first_host_first, is_first_host
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.state import TrainState


class Checkpointer:
    """The checkpoints of one run; a context manager that waits for the last save."""

    def __init__(self, workdir: pathlib.Path, reporter: Reporter | None = None) -> None:
        """Opens the checkpoints, once damaged ones are set aside.

        Args:
          workdir: of the run.
          reporter: hears of damaged ones.

        Raises:
          DeepLabError: there are checkpoints, and none is good.
        """
        self._workdir = workdir
        with first_host_first("checkpoints"):
            if is_first_host():
                set_damaged_aside(workdir, (reporter or Reporter()).warning)
        self._manager = open_checkpoints(workdir, read_only=False)

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._manager.close()
        except Exception as failure:
            # What went wrong first matters more than a save that failed after it.
            if error is None:
                raise self._save_error(failure) from failure

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None before the first."""
        return self._manager.latest_step()

    def save(self, state: TrainState, info: dict[str, Any], mean_iou: float | None = None) -> None:
        """Starts saving in the background; waits for an earlier save first.

        Args:
          state: to save; may be donated as soon as this returns.
          info: JSON-ready: config, class names, data position.
          mean_iou: of the validation at this step, by which the best checkpoint is kept.

        Raises:
          DeepLabError: this or the save before it failed; names the last good checkpoint.
        """
        step = int(state.step)
        items = {
            VARIABLES: ocp.args.StandardSave(state.variables),
            OPTIMIZER: ocp.args.StandardSave(_optimizer_item(state)),
            INFO: ocp.args.JsonSave(info),
        }
        if state.ema is not None:
            items[EMA] = ocp.args.StandardSave(state.ema)
        metrics = None if mean_iou is None else {"mean_iou": mean_iou}
        try:
            # Orbax waits for the save before, on all processes.
            self._manager.save(
                step, args=ocp.args.Composite(**items), metrics=metrics, custom_metadata=MARK
            )
        except Exception as failure:
            raise self._save_error(failure) from failure

    def wait(self) -> None:
        """Waits until what was saved is on disk.

        Raises:
          DeepLabError: as `save`.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as failure:
            raise self._save_error(failure) from failure

    def restore(self, like: TrainState) -> TrainState:
        """Returns the newest checkpoint's state in the shapes and shardings of `like`."""
        items = {
            VARIABLES: ocp.args.StandardRestore(like.variables),
            OPTIMIZER: ocp.args.StandardRestore(_optimizer_item(like)),
        }
        if like.ema is not None:
            items[EMA] = ocp.args.StandardRestore(like.ema)
        found = self._manager.restore(self.latest_step, args=ocp.args.Composite(**items))
        optimizer = found[OPTIMIZER]
        return TrainState(optimizer["step"], found[VARIABLES], optimizer["state"], found.get(EMA))

    def _save_error(self, failure: Exception) -> DeepLabError:
        steps = saved_steps(self._workdir)
        kept = f"the checkpoint of step {max(steps)} is good" if steps else "none was saved before"
        reason = " ".join(str(failure).split())[:300]
        return DeepLabError(
            f"could not save a checkpoint in {self._workdir}: {reason}; {kept}; "
            "make room and start the same command again"
        )


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "state": state.optimizer_state}
