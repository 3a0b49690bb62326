"""Checkpoints of a workdir: listing, validation and choice."""

import concurrent.futures
import itertools
import json
import pathlib
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from etils import epath

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import absolute

MANIFEST = "files.json"
# Orbax changes the first and writes the second after the manifest is written.
METADATA, COMMITTED = "_CHECKPOINT_METADATA", "commit_success.txt"
# Keys of the metadata that Orbax sets after the manifest is written, and that reading ignores.
COMMIT_TIME, HANDLERS = "commit_timestamp_nsecs", "item_handlers"
# Marks checkpoints with a manifest in the metadata; earlier versions wrote none.
MARK = {"manifest": MANIFEST}
CHUNK_BYTES = 2**20


def write_manifest(directory: epath.Path) -> None:
    """Writes the manifest of a directory whose files are complete.

    CRC-32 detects every burst error of up to 32 bits, and all but one in 4·10⁹ others. It protects
    against accidents, not against forgery.
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
    """Returns a description of the damage to the files of a directory, or None.

    Args:
      directory: directory of a checkpoint or of a model's variables.
      items: items of the checkpoint to check, or None for all. Files beside the items are always
        checked.
    """
    try:
        return _damage(directory, items)
    # Damaged JSON can raise any of these.
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
            return f"{METADATA} is not as it was written"
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
    return None if _size_and_checksum(path)[1] == checksum else f"{name} has another checksum"


def _size_and_checksum(path: epath.Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return size, checksum


def _metadata(directory: epath.Path) -> dict[str, Any]:
    """Returns the metadata, without the keys that Orbax sets at the commit."""
    content = json.loads((directory / METADATA).read_text())
    for key, kind in ((COMMIT_TIME, int), (HANDLERS, dict | str)):
        value = content.pop(key)
        if value is not None and not isinstance(value, kind):
            raise ValueError(value)
    return content


def _files(directory: epath.Path, above: str = "") -> Iterator[str]:
    """Yields the names of all files below a directory."""
    for path in directory.iterdir():
        if path.is_dir():
            yield from _files(path, f"{above}{path.name}/")
        else:
            yield above + path.name


CHECKPOINTS, SET_ASIDE = "checkpoints", "damaged_checkpoints"
# Items of a checkpoint. Variables are separate, so that inference reads no optimizer state.
VARIABLES, EMA, OPTIMIZER, INFO = "variables", "ema", "optimizer", "info"
# Written by Orbax, for the choice of the best.
METRICS = "metrics"


def checkpoints_directory(workdir: pathlib.Path) -> epath.Path:
    """Returns the directory of the checkpoints of a workdir, which can be in a bucket."""
    return absolute(workdir) / CHECKPOINTS


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the sorted steps of all checkpoints, damaged ones included."""
    directory = checkpoints_directory(workdir)
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def checkpoint_damage(workdir: pathlib.Path, step: int, *items: str) -> str | None:
    """Returns a description of the damage to a checkpoint, or None.

    Args:
      workdir: workdir of the training run.
      step: step of the checkpoint.
      *items: items of the checkpoint to check (default: all).
    """
    return damage(checkpoints_directory(workdir) / str(step), items or None)


def set_damaged_aside(workdir: pathlib.Path, report: Callable[[str], None]) -> None:
    """Moves damaged checkpoints to another directory, so that the last one is undamaged.

    Args:
      workdir: workdir of a training run that resumes.
      report: receives a message about each damaged checkpoint.

    Raises:
      DeepLabError: all checkpoints are damaged; none is moved.
    """
    directory, steps = checkpoints_directory(workdir), saved_steps(workdir)
    found = {step: checkpoint_damage(workdir, step) for step in steps}
    damaged = {step: what for step, what in found.items() if what}
    if damaged and len(damaged) == len(steps):
        reasons = "; ".join(f"{step}: {what}" for step, what in damaged.items())
        raise DeepLabError(
            f"no checkpoint in {directory} is good: {reasons}; restore one from a copy, or remove "
            "them to start again"
        )
    for step, what in damaged.items():
        names = itertools.chain([str(step)], (f"{step}_{number}" for number in itertools.count(2)))
        targets = (absolute(workdir) / SET_ASIDE / name for name in names)
        target = next(target for target in targets if not target.exists())
        target.parent.mkdir(parents=True, exist_ok=True)
        (directory / str(step)).rename(target)
        report(f"the checkpoint of step {step} is damaged ({what}); it was moved to {target}")
