"""Saves and restores the checkpoints of a training run."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from deeplab_jax.checkpointing.orbax_items import open_checkpoints, restore_items, save_items
from deeplab_jax.checkpointing.saved_states import (
    EMA,
    OPTIMIZER,
    VARIABLES,
    checkpoints_directory,
    newest_good_step,
    remove_unfinished,
    set_damaged_aside,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import check_writable
from deeplab_jax.parallel import first_host_first, is_first_host
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.state import TrainState


class Checkpointer(contextlib.AbstractContextManager["Checkpointer"]):
    """Saves and restores the checkpoints of a run.

    As a context manager, it waits at the end of the block until the last save has finished.
    """

    def __init__(self, workdir: pathlib.Path, reporter: Reporter | None = None) -> None:
        """Opens the checkpoints of a run, after moving damaged ones to another directory.

        Args:
          workdir: directory of the run.
          reporter: receives a warning for each damaged checkpoint. If the workdir is in a cloud
            storage bucket, it also receives a message for each unfinished checkpoint, which is
            removed.

        Raises:
          DeepLabError: all existing checkpoints are damaged, or new ones cannot be written.
        """
        self._workdir = workdir
        with first_host_first("checkpoints"):
            if is_first_host():
                check_writable(checkpoints_directory(workdir))
                reporter = reporter or Reporter()
                remove_unfinished(workdir, reporter.message)
                set_damaged_aside(workdir, reporter.warning)
        self._manager = open_checkpoints(workdir, read_only=False)

    def __exit__(self, *raised: object) -> None:
        try:
            with self._explained():
                self._manager.close()
        except DeepLabError:
            # If the block failed, its error is raised instead of an error of saving.
            if raised[0] is None:
                raise

    @property
    def latest_step(self) -> int | None:
        """Step of the last checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, info: dict[str, Any], mean_iou: float | None = None) -> None:
        """Waits for the previous save to finish, and starts saving a state in the background.

        Args:
          state: state to save; it may be donated after this method returns.
          info: values for the JSON file of the checkpoint: config, class names, seed and step.
          mean_iou: validation mean IoU at this step, which ranks the checkpoints; None: no
            validation.

        Raises:
          DeepLabError: this or the previous save failed. The message names the last valid
            checkpoint.
        """
        metrics = None if mean_iou is None else {"mean_iou": mean_iou}
        with self._explained():
            save_items(self._manager, int(state.step), _items(state), info, metrics)

    def rank(self, state: TrainState, info: dict[str, Any], mean_iou: float) -> None:
        """Adds a validation mean IoU, which ranks the checkpoints, to the newest checkpoint.

        The checkpoint is deleted and saved again. If the run has no other checkpoint, the method
        does nothing, because no checkpoint would remain if saving failed.

        Args:
          state: state of the newest checkpoint.
          info: values for the JSON file of the checkpoint, as in `save`.
          mean_iou: mean IoU of the validation at the step of the state.

        Raises:
          DeepLabError: this or the previous save failed.
        """
        if len(self._manager.all_steps()) > 1:
            values = {"mean_iou": mean_iou}
            with self._explained():
                save_items(self._manager, int(state.step), _items(state), info, values, again=True)

    def wait(self) -> None:
        """Waits until saving has finished.

        Raises:
          DeepLabError: the last save failed.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState:
        """Restores the last checkpoint with the shapes and shardings of the state `like`."""
        found = restore_items(self._manager, _items(like))
        optimizer = found[OPTIMIZER]
        return TrainState(optimizer["step"], found[VARIABLES], optimizer["state"], found.get(EMA))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Context manager that converts errors in its `with` block to a DeepLabError.

        The message names the last valid checkpoint.
        """
        try:
            yield
        except Exception as failure:
            kept = _newest_good(self._workdir)
            reason = " ".join(str(failure).split())[:300]
            raise DeepLabError(
                f"could not save a checkpoint in {self._workdir}: {reason}; {kept}. If the disk is "
                "full, free disk space. Then start the same command again"
            ) from failure


def _newest_good(workdir: pathlib.Path) -> str:
    """Returns a clause for error messages that names the newest undamaged checkpoint."""
    try:
        step = newest_good_step(workdir)
    except Exception:
        # Not all errors of a bucket are OSErrors, for example HttpError of gcsfs.
        return "the earlier checkpoints cannot be read"
    return "no checkpoint is valid" if step is None else f"the checkpoint of step {step} is valid"


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the parts of a state that become items of a checkpoint, by the names of the items."""
    optimizer = {"step": state.step, "state": state.optimizer_state}
    averages = {} if state.ema is None else {EMA: state.ema}
    return {VARIABLES: state.variables, OPTIMIZER: optimizer, **averages}
