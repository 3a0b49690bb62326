"""Saving and restoring with Orbax; no other module imports Orbax.

Therefore, a new major version of Orbax, such as 1.0, requires changes in this module only. The
modules `saved_states` and `store` check files and read model directories without Orbax.
"""

import contextlib
import logging
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import checkpoint_managers

from deeplab_jax.checkpointing.saved_states import (
    COMMITTED,
    INFO,
    MARK,
    checkpoints_directory,
    uncommit,
    write_manifest,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import is_local, remove_directory

# Number of newest checkpoints to keep. If the newest one is damaged, the second one is used.
KEPT = 2
# End of the names of directories that Orbax does not read, and removes when a run is resumed.
TEMPORARY = ".orbax-checkpoint-tmp"


def _score(metrics: dict[str, float]) -> float:
    """Returns the score by which checkpoints are ranked: the mean IoU, or −∞ if it is NaN."""
    mean_iou = metrics["mean_iou"]
    return -math.inf if math.isnan(mean_iou) else mean_iou


def open_checkpoints(workdir: pathlib.Path, *, read_only: bool = True) -> ocp.CheckpointManager:
    """Opens the checkpoints of a workdir.

    The last two checkpoints and the one with the best `mean_iou` are kept. Saving is asynchronous.

    Args:
      workdir: workdir of the training run.
      read_only: whether to open the checkpoints only for reading. If False, as in a training run,
        incomplete checkpoints are removed.
    """
    directory = checkpoints_directory(workdir)
    if read_only:
        options = ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, create=False, best_fn=_score
        )
        with _without_read_only_warning():
            return ocp.CheckpointManager(directory, options=options)
    best = checkpoint_managers.BestN(
        get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
    )
    latest = checkpoint_managers.LatestN(KEPT)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
        best_fn=_score,
        cleanup_tmp_directories=True,
        # One process calls this function after all processes have written their parts, and before
        # the checkpoint is renamed, so that every checkpoint has a manifest.
        async_options=ocp.AsyncOptions(
            post_finalization_callback=lambda: _write_manifests(directory)
        ),
    )
    manager = ocp.CheckpointManager(directory, options=options)
    _hide_before_deletion(manager)
    return manager


@contextlib.contextmanager
def _without_read_only_warning() -> Iterator[None]:
    """Suppresses Orbax's warning that checkpoints are opened only for reading, as intended."""
    logger = logging.getLogger("absl")

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Given directory is read only")

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _hide_before_deletion(manager: ocp.CheckpointManager) -> None:
    """Changes a manager such that readers ignore a checkpoint whose files are being deleted.

    Orbax deletes the files of a checkpoint one by one and in any order. Meanwhile, the checkpoint
    would look damaged to other processes; it would remain so if the deleting process were killed.
    Therefore, a local checkpoint first gets the name of a temporary directory. A checkpoint in a
    bucket, where directories cannot be renamed, is marked as unfinished instead.
    """
    deleter = manager._checkpoint_deleter
    delete_in_place = deleter.delete

    def hide_and_delete(step: int) -> None:
        path, is_first = manager.directory / str(step), jax.process_index() == 0
        if not is_local(path):
            if is_first:
                uncommit(path)
            delete_in_place(step)
        elif is_first and path.exists():
            hidden = path.with_name(f"deleted_{step}{TEMPORARY}")
            path.rename(hidden)
            remove_directory(hidden)

    deleter.delete = hide_and_delete


def choose_step(manager: ocp.CheckpointManager, which: str | int) -> int:
    """Returns the step of a checkpoint.

    Args:
      manager: opened checkpoints.
      which: `best` (the last checkpoint if none has metrics), `last`, or the number of a step.

    Raises:
      DeepLabError: there is no such checkpoint. The message lists the existing checkpoints.
    """
    which, steps = str(which), sorted(manager.all_steps())
    if not steps:
        raise DeepLabError(
            f"{manager.directory} has no checkpoint yet; wait until the run saves one, or give "
            "another model"
        )
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
    """Writes a manifest (file sizes and checksums) into each unfinished checkpoint.

    Orbax calls this function when all files of a checkpoint are written, before it marks the
    checkpoint as finished.

    Args:
      directory: directory of all checkpoints of a run.
    """
    for path in directory.iterdir():
        # Until the commit, the name has a suffix. In buckets, which cannot rename, it has none.
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
    """Waits for the previous save, and then starts saving a checkpoint in the background.

    Args:
      manager: checkpoints, opened for writing.
      step: training step.
      trees: a tree of arrays for each item of the checkpoint, by the name of the item. Items, such
        as `variables` and `optimizer`, can be restored separately.
      info: JSON-ready content of the item `info`: config, class names, seed and step.
      metrics: validation metrics at this step; None: the run did not validate at this step.
      again: whether to replace an existing checkpoint of this step.
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


def restore_items(manager: ocp.CheckpointManager, like: Mapping[str, Any]) -> Mapping[str, Any]:
    """Restores items (separately saved parts, see `save_items`) of the last checkpoint.

    If there are several processes, only the first one reads the checkpoint. It sends the arrays to
    the other processes.

    Args:
      manager: opened checkpoints.
      like: {name of each item to restore: tree of arrays or of `jax.ShapeDtypeStruct`}. The
        restored arrays have the shapes, dtypes and shardings of this tree.

    Returns:
      A tree of arrays for each item, by the name of the item.
    """
    step = manager.latest_step()
    if jax.process_count() > 1:
        directory = manager.directory / str(step)
        return {name: _read_once(directory / name, tree) for name, tree in like.items()}
    items = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
    return manager.restore(step, args=ocp.args.Composite(**items))


def _read_once(directory: epath.Path, like: Any) -> Any:
    """Reads a tree of arrays in the first process, and sends it to the other processes.

    Args:
      directory: directory of one item of a checkpoint.
      like: tree of arrays or of `jax.ShapeDtypeStruct` with the shapes, dtypes and shardings of the
        result.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    grid = np.asarray(devices).reshape(jax.process_count(), -1)
    # Orbax reads on the devices of the first row of this mesh, and broadcasts along its columns.
    everywhere = NamedSharding(Mesh(grid, ("process", "device")), PartitionSpec())
    handlers = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, ocp.type_handlers.SingleReplicaArrayHandler())
    )
    arguments = jax.tree.map(
        lambda leaf: ocp.type_handlers.SingleReplicaArrayRestoreArgs(
            sharding=everywhere, global_shape=leaf.shape, dtype=leaf.dtype
        ),
        like,
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=handlers)) as reader:
        restored = reader.restore(
            directory, args=ocp.args.PyTreeRestore(item=like, restore_args=arguments)
        )
    return jax.tree.map(_resharded, restored, like)


def _resharded(whole: jax.Array, like: jax.Array) -> jax.Array:
    """Converts an array that is replicated on all devices to the sharding of another array.

    Args:
      whole: replicated array.
      like: array, or `jax.ShapeDtypeStruct`, with the sharding of the result.
    """
    copies = {shard.device: shard.data for shard in whole.addressable_shards}
    regions = like.sharding.addressable_devices_indices_map(whole.shape)
    parts = [copies[device][region] for device, region in regions.items()]
    return jax.make_array_from_single_device_arrays(whole.shape, like.sharding, parts)


def save_tree(directory: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays to a new directory."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory, tree)
