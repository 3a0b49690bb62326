"""The files that a TensorFlow checkpoint consists of, and which one a path means."""

import re
from pathlib import Path

from deeplab_jax.errors import DeepLabError

INDEX = ".index"
# Of the part number, of so many.
DATA = re.compile(r"\.data-\d{5}-of-(\d{5})$")
# TensorFlow's list of a directory's checkpoints names the last one.
STATE, LATEST = "checkpoint", re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)


def is_checkpoint(path: Path) -> bool:
    """Returns whether a file is part of a checkpoint, or one in TensorFlow's older, single file."""
    return path.suffix in (INDEX, ".ckpt") or DATA.search(path.name) is not None


def checkpoint_prefix(path: Path) -> Path:
    """Returns what the names of a checkpoint's files have in common, from any one of them."""
    return path.with_name(DATA.sub("", path.name.removesuffix(INDEX)))


def checkpoint_file(path: Path) -> Path | None:
    """Returns the file that tells a checkpoint from others; None where a path means none.

    That is the file of its arrays, or the index, with their checksums, where they are in several.

    Args:
      path: a checkpoint's prefix, one of its files, or a directory with one checkpoint.

    Raises:
      DeepLabError: arrays are missing, or a directory holds several checkpoints.
    """
    prefix = _latest(path) if path.is_dir() else checkpoint_prefix(path)
    if prefix is None or not _index(prefix).is_file():
        if DATA.search(path.name):
            raise DeepLabError(f"{path} is nothing without {_index(prefix).name} beside it")
        return None
    parts = [part for part in prefix.parent.iterdir() if _belongs(part, prefix)]
    expected = int(DATA.search(parts[0].name)[1]) if parts else 1
    if len(parts) != expected:
        raise DeepLabError(
            f"{prefix} has {len(parts)} of its {expected} files {prefix.name}.data-…; "
            f"put them beside {_index(prefix).name}"
        )
    return parts[0] if expected == 1 else _index(prefix)


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + INDEX)


def _belongs(part: Path, prefix: Path) -> bool:
    return DATA.search(part.name) is not None and checkpoint_prefix(part) == prefix


def _latest(directory: Path) -> Path | None:
    """Returns the prefix of a directory's only checkpoint, or of the last one of a training run."""
    prefixes = sorted(checkpoint_prefix(index) for index in directory.glob(f"[!.]*{INDEX}"))
    state = directory / STATE
    if len(prefixes) > 1 and state.is_file():
        latest = LATEST.search(state.read_text("utf-8", errors="replace"))
        named = directory / Path(latest[1]).name if latest else None
        prefixes = [prefix for prefix in prefixes if prefix == named] or prefixes
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes)
        raise DeepLabError(f"{directory} holds several checkpoints; give one of them: {names}")
    return prefixes[0] if prefixes else None
