"""What a checkpoint on disk must hold: size and checksum of each file, written as it is saved."""

import concurrent.futures
import json
import zlib
from collections.abc import Collection, Iterator
from typing import Any

from etils import epath

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
