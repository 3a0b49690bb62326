"""Lists the checkpoints of a workdir and detects damaged files."""

import collections
import concurrent.futures
import itertools
import json
import pathlib
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from etils import epath

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import absolute, is_local, remove_directory

MANIFEST = "files.json"
# File that Orbax changes, and file that Orbax creates, after the manifest is written.
METADATA, COMMITTED = "_CHECKPOINT_METADATA", "commit_success.txt"
# Keys of the metadata that Orbax sets after the manifest is written; they are not compared.
COMMIT_TIME, HANDLERS = "commit_timestamp_nsecs", "item_handlers"
# Entry in the metadata of checkpoints with a manifest. Earlier releases wrote no manifest.
MARK = {"manifest": MANIFEST}
CHUNK_BYTES = 2**20


def write_manifest(directory: epath.Path) -> None:
    """Writes the manifest of a directory: the size and CRC-32 of each file.

    All files must be complete. CRC-32 detects every burst error of up to 32 bits, and misses about
    one in 4·10⁹ other errors. It protects against accidental damage, not against manipulation.
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
    """Compares the files of a directory with its manifest, a list of their sizes and checksums.

    Directories that earlier releases wrote without a manifest are not checked.

    Args:
      directory: directory of a checkpoint, or of the variables of a model.
      items: names of the checkpoint items to check. An item is a subdirectory, such as `variables`.
        None: all items. Files outside of subdirectories are always checked.

    Returns:
      A description of the damage; None if there is none.
    """
    try:
        return _damage(directory, items)
    # Damaged JSON can raise any of these exceptions.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{MANIFEST} or {METADATA} cannot be read ({type(error).__name__})"
    except OSError as error:
        return f"it cannot be read ({error})"


def _damage(directory: epath.Path, items: Collection[str] | None) -> str | None:
    if not (directory / MANIFEST).exists():
        metadata = _metadata(directory) if (directory / METADATA).exists() else {}
        return f"{MANIFEST} is missing" if metadata.get("custom_metadata") == MARK else None
    content = json.loads((directory / MANIFEST).read_text())
    if "metadata" in content:
        if not (directory / COMMITTED).exists():
            return f"{COMMITTED} is missing"
        if _metadata(directory) != content["metadata"]:
            return f"{METADATA} was changed after it was written"
    files = {
        name: facts
        for name, facts in content["files"].items()
        if items is None or "/" not in name or name.partition("/")[0] in items
    }
    with concurrent.futures.ThreadPoolExecutor() as threads:
        found = threads.map(lambda name: _file_damage(directory, name, *files[name]), files)
        return next(filter(None, found), None)


def _file_damage(directory: epath.Path, name: str, size: int, checksum: int) -> str | None:
    path = directory / name
    if not path.exists():
        return f"{name} is missing"
    length = path.stat().length
    if length != size:
        return f"{name} has {length} bytes instead of {size}"
    return None if _size_and_checksum(path)[1] == checksum else f"{name} has a wrong checksum"


def _size_and_checksum(path: epath.Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return size, checksum


def _metadata(directory: epath.Path) -> dict[str, Any]:
    """Returns the metadata of a checkpoint, without the keys `COMMIT_TIME` and `HANDLERS`.

    Orbax changes these keys after the manifest is written, so they cannot be compared with it.
    """
    content = json.loads((directory / METADATA).read_text())
    for key, kind in ((COMMIT_TIME, int), (HANDLERS, dict | str)):
        value = content.pop(key)
        if value is not None and not isinstance(value, kind):
            raise ValueError(value)
    return content


def _files(directory: epath.Path, above: str = "") -> Iterator[str]:
    """Yields the paths of all files in a directory tree, relative to `directory`.

    Args:
      directory: root of the directory tree.
      above: prefix of all paths: empty, or the path of a subdirectory in recursive calls.
    """
    for path in directory.iterdir():
        if path.is_dir():
            yield from _files(path, f"{above}{path.name}/")
        else:
            yield above + path.name


CHECKPOINTS, SET_ASIDE = "checkpoints", "damaged_checkpoints"
# Items of a checkpoint. The variables are a separate item, so that inference does not read the
# optimizer state.
VARIABLES, EMA, OPTIMIZER, INFO = "variables", "ema", "optimizer", "info"
# Item that Orbax writes, from which the best checkpoint is determined.
METRICS = "metrics"


def checkpoints_directory(workdir: pathlib.Path) -> epath.Path:
    """Returns the absolute path of a workdir's checkpoint directory, which may be in a bucket."""
    return absolute(workdir) / CHECKPOINTS


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of all finished checkpoints in ascending order, damaged ones included."""
    return sorted(int(path.name) for path in _steps(workdir) if not _is_unfinished(path))


def _steps(workdir: pathlib.Path) -> list[epath.Path]:
    """Returns the directories of all checkpoints, finished or not."""
    directory = checkpoints_directory(workdir)
    paths = directory.iterdir() if directory.is_dir() else ()
    return [path for path in paths if path.name.isdecimal()]


def _is_unfinished(directory: epath.Path) -> bool:
    """Returns whether a checkpoint in a bucket is incomplete: not fully saved, or partly deleted.

    A checkpoint in a bucket has its final name from the beginning of the save, because files in a
    bucket cannot be renamed. The name therefore does not show whether the save has finished. For
    local checkpoints, the function returns False.
    """
    return not is_local(directory) and not (directory / COMMITTED).exists()


def uncommit(directory: epath.Path) -> None:
    """Marks a checkpoint in a bucket as unfinished; does nothing for a local checkpoint.

    Must be called before the files of the checkpoint are deleted. If the deletion is interrupted,
    the checkpoint then counts as unfinished, not as damaged.
    """
    if not is_local(directory):
        (directory / COMMITTED).unlink(missing_ok=True)


def remove_unfinished(workdir: pathlib.Path, report: Callable[[str], None]) -> None:
    """Removes the incomplete checkpoints in a bucket: those not fully saved, or partly deleted.

    In a local workdir, this function removes nothing, because Orbax removes such checkpoints.

    Args:
      workdir: workdir of a training run that is resumed.
      report: function that receives a message about each removed checkpoint.
    """
    for path in filter(_is_unfinished, _steps(workdir)):
        remove_directory(path)
        report(f"the unfinished checkpoint of step {path.name} was removed")


def newest_good_step(workdir: pathlib.Path) -> int | None:
    """Returns the step of the newest checkpoint without damage; None if there is none."""
    steps = reversed(saved_steps(workdir))
    return next((step for step in steps if not checkpoint_damage(workdir, step)), None)


def checkpoint_damage(workdir: pathlib.Path, step: int, *items: str) -> str | None:
    """Compares a checkpoint with its manifest; see `damage`.

    Args:
      workdir: workdir of the training run.
      step: step of the checkpoint.
      *items: names of the items of the checkpoint to check, such as `variables` (default: all).

    Returns:
      A description of the damage; None if there is none.
    """
    return damage(checkpoints_directory(workdir) / str(step), items or None)


def set_damaged_aside(workdir: pathlib.Path, report: Callable[[str], None]) -> None:
    """Moves damaged checkpoints to WORKDIR/damaged_checkpoints.

    Training then resumes from a valid checkpoint.

    Args:
      workdir: workdir of a training run that is resumed.
      report: function that receives a message about each damaged checkpoint.

    Raises:
      DeepLabError: all checkpoints are damaged. In this case, none is moved.
    """
    directory, steps = checkpoints_directory(workdir), saved_steps(workdir)
    found = {step: checkpoint_damage(workdir, step) for step in steps}
    damaged = {step: what for step, what in found.items() if what}
    if damaged and len(damaged) == len(steps):
        reasons = "; ".join(f"step {step}: {what}" for step, what in damaged.items())
        raise DeepLabError(
            f"all checkpoints in {directory} are damaged ({reasons}); restore one from a copy, or "
            "delete all of them to start the training again"
        )
    for step, what in damaged.items():
        names = itertools.chain([str(step)], (f"{step}_{number}" for number in itertools.count(2)))
        targets = (absolute(workdir) / SET_ASIDE / name for name in names)
        target = next(target for target in targets if not target.exists())
        _move(directory / str(step), target)
        report(f"the checkpoint of step {step} is damaged ({what}); it was moved to {target}")


def _move(source: epath.Path, target: epath.Path) -> None:
    """Moves a checkpoint; in a bucket, its files are copied and then deleted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_local(source):
        source.rename(target)
        return
    with concurrent.futures.ThreadPoolExecutor() as threads:
        copies = threads.map(lambda name: (source / name).copy(target / name), _files(source))
        collections.deque(copies, maxlen=0)
    uncommit(source)
    remove_directory(source)
