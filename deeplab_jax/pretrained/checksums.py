"""Checksums of published files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from deeplab_jax.errors import DeepLabError


def verify(path: Path, checksums: Sequence[str]) -> None:
    """Checks that a file is the published one.

    Args:
      path: of the file.
      checksums: `ALGORITHM:DIGITS` with an algorithm of hashlib, whole or the first digits; one of
        them must fit. Without any, every file will do.

    Raises:
      DeepLabError: none fits; says the file's and the published ones.
    """
    found = {algorithm: _digest(path, algorithm) for algorithm in map(_algorithm, checksums)}
    if checksums and not any(
        found[_algorithm(checksum)].startswith(_digits(checksum)) for checksum in checksums
    ):
        ours = ", ".join(f"{algorithm}:{digits}" for algorithm, digits in found.items())
        raise DeepLabError(
            f"{path.name} is not the published file: its checksum is {ours}, "
            f"published is {' or '.join(checksums)}"
        )


def _algorithm(checksum: str) -> str:
    return checksum.partition(":")[0]


def _digits(checksum: str) -> str:
    return checksum.partition(":")[2]


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
