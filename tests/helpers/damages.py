"""Kinds of damage to a file on a disk."""

import pathlib
from collections.abc import Callable

import numpy as np


def truncate(path: pathlib.Path, random: np.random.Generator) -> None:
    """Truncates a file; removes it if it is empty."""
    content = path.read_bytes()
    if not content:
        path.unlink()
        return
    path.write_bytes(content[: random.integers(len(content))])


def empty(path: pathlib.Path, random: np.random.Generator) -> None:
    """Empties a file."""
    path.write_bytes(b"")


def flip(path: pathlib.Path, random: np.random.Generator) -> None:
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
    path.write_bytes(bytes(content))


def zero(path: pathlib.Path, random: np.random.Generator) -> None:
    """Replaces the content by zeros, as a power failure may."""
    path.write_bytes(bytes(path.stat().st_size))


def delete(path: pathlib.Path, random: np.random.Generator) -> None:
    """Removes a file."""
    path.unlink()


Damage = Callable[[pathlib.Path, np.random.Generator], None]
DAMAGES: dict[str, Damage] = {
    damage.__name__: damage for damage in (truncate, empty, flip, zero, delete)
}
