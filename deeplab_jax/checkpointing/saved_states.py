"""Which saved states a directory holds, and whether each is whole."""

import concurrent.futures
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import absolute

if TYPE_CHECKING:
    import orbax.checkpoint as ocp


MANIFEST = "files.json"
# Orbax adds to the first, and the second, after the manifest is written.
METADATA, COMMITTED = "_CHECKPOINT_METADATA", "commit_success.txt"
# What it adds: the time of the commit, and at times the handlers, which we name ourselves when we
# read.
COMMIT_TIME, HANDLERS = "commit_timestamp_nsecs", "item_handlers"
# Says in the metadata that there is a manifest: checkpoints of earlier versions have none.
MARK = {"manifest": MANIFEST}
CHUNK_BYTES = 2**20


def write_manifest(directory: epath.Path) -> None:
    """Writes the manifest of a directory whose files are complete.

    CRC-32 finds every damage of up to 32 bits in a row, and all but one in 4·10⁹ others; it is made
    against accidents, not against forgers.
    """
    names = sorted(name for name in _files(directory) if name not in (MANIFEST, METADATA))
    with concurrent.futures.ThreadPoolExecutor() as threads:
        facts = threads.map(lambda name: _size_and_checksum(directory / name), names)
        files = dict(zip(names, facts, strict=True))
    content: dict[str, Any] = {"files": files}
    if (directory / METADATA).exists():
        content["metadata"] = _metadata(directory)
    (directory / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")


def damage(directory: epath.Path, items: Collection[str] | None = None) -> str | None:
    """Returns what is wrong with the files of a directory, None where all are as they were written.

    Args:
      directory: of a checkpoint, or a model directory.
      items: its parts to look at; None: all. What stands beside the parts is always looked at.
    """
    try:
        return _damage(directory, items)
    # Damaged JSON can be anything.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{MANIFEST} or {METADATA} cannot be read ({type(error).__name__})"
    except OSError as error:
        return f"it cannot be read ({error})"


def _damage(directory: epath.Path, items: Collection[str] | None) -> str | None:
    if not (directory / MANIFEST).exists():
        return _without_manifest(directory)
    content = json.loads((directory / MANIFEST).read_text())
    if "metadata" in content:
        if not (directory / COMMITTED).exists():
            return f"{COMMITTED} is missing"
        if _metadata(directory) != content["metadata"]:
            return f"{METADATA} is not as it was written"
    files = {
        name: facts
        for name, facts in content["files"].items()
        if items is None or "/" not in name or name.partition("/")[0] in items
    }
    with concurrent.futures.ThreadPoolExecutor() as threads:
        found = threads.map(lambda name: _file_damage(directory, name, *files[name]), files)
        return next(filter(None, found), None)


def _without_manifest(directory: epath.Path) -> str | None:
    """Returns that the manifest is missing, unless there never was one."""
    if not (directory / METADATA).exists():
        return None
    marked = _metadata(directory).get("custom_metadata") == MARK
    return f"{MANIFEST} is missing" if marked else None


def _file_damage(directory: epath.Path, name: str, size: int, checksum: int) -> str | None:
    path = directory / name
    if not path.exists():
        return f"{name} is missing"
    length = path.stat().length
    if length != size:
        return f"{name} has {length} bytes instead of {size}"
    return None if _size_and_checksum(path)[1] == checksum else f"{name} has another checksum"


def _size_and_checksum(path: epath.Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return size, checksum


def _metadata(directory: epath.Path) -> dict[str, Any]:
    """Returns what Orbax wrote before the commit; what came with it must be of the right kind."""
    content = json.loads((directory / METADATA).read_text())
    time, handlers = content.pop(COMMIT_TIME), content.pop(HANDLERS)
    if time is not None and not isinstance(time, int):
        raise ValueError(time)
    if handlers is not None and not isinstance(handlers, dict | str):
        raise ValueError(handlers)
    return content


def _files(directory: epath.Path, above: str = "") -> Iterator[str]:
    """Yields the names of all files below a directory."""
    for path in directory.iterdir():
        if path.is_dir():
            yield from _files(path, f"{above}{path.name}/")
        else:
            yield above + path.name


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
      hear: receives a message for each.

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
