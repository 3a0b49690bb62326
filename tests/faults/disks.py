"""Files that are damaged on a disk, and a disk that is full."""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Iterator

import jax
import numpy as np
from damages import DAMAGES
from kills import same_end
from tiny_run import TinyRuns, newest_step

from deeplab_jax.checkpointing import open_checkpoints, read_variables
from deeplab_jax.checkpointing.saved_states import (
    checkpoint_damage,
    saved_steps,
    set_damaged_aside,
)

DISK_BYTES = 16 * 2**20


@dataclasses.dataclass
class Tally:
    """What came of damages, each of one file of a copy of a real run.

    Attributes:
      files: of a checkpoint.
      found: damages after which the checkpoint was named and set aside.
      harmless: those after which it was read as it had been written.
      missed: all others.
    """

    files: int = 0
    found: int = 0
    harmless: int = 0
    missed: list[str] = dataclasses.field(default_factory=list)

    def rows(self) -> list[tuple[str, object]]:
        """What a table shows."""
        kinds = ", ".join(DAMAGES)
        return [
            ("files of a checkpoint, each damaged in these ways", f"{self.files}: {kinds}"),
            ("damages found, named and set aside", self.found),
            ("damages without effect", self.harmless),
            ("damages that were missed", len(self.missed)),
        ]


def damage_files(runs: TinyRuns, run: pathlib.Path, seed: int) -> Tally:
    """Damages every file of a run's newest checkpoint in every way, one at a time."""
    random, tally = np.random.default_rng(seed), Tally()
    step = newest_step(run)
    expected = _everything(run, step)
    directory = run / "checkpoints" / str(step)
    names = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    tally.files = len(names)
    for name in names:
        for kind, damage in DAMAGES.items():
            copy = runs.folder / "damaged"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            damage(copy / "checkpoints" / str(step) / name, random)
            heard: list[str] = []
            set_damaged_aside(copy, heard.append)
            if len(heard) == 1 and f"step {step}" in heard[0] and max(saved_steps(copy)) < step:
                tally.found += 1
            elif not heard and _reads_as(copy, step, expected):
                tally.harmless += 1
            else:
                tally.missed.append(f"{name} {kind}: {heard}")
    return tally


def _everything(run: pathlib.Path, step: int) -> list[np.ndarray]:
    return jax.tree.leaves([read_variables(run, str(step), ema) for ema in (False, True)])


def _reads_as(run: pathlib.Path, step: int, expected: list[np.ndarray]) -> bool:
    with open_checkpoints(run, read_only=False) as manager:
        if manager.latest_step() != step:
            return False
    return all(map(np.array_equal, _everything(run, step), expected))


def full_disk(runs: TinyRuns, undisturbed: pathlib.Path) -> list[tuple[str, object]]:
    """Fills the disk of a run after its first checkpoint, then makes room again.

    Raises:
      PermissionError: a small file system cannot be mounted here.
    """
    with small_disk(runs.folder / "disk") as disk:
        workdir, filler = disk / "run", disk / "filler"
        process = runs.start(*runs.train_words(workdir))
        while process.poll() is None and not newest_step(workdir):
            time.sleep(0.01)
        _fill(filler)
        said = process.communicate(timeout=900)[1]
        kept = newest_step(workdir)
        good = kept > 0 and checkpoint_damage(workdir, kept) is None
        filler.unlink()
        runs.finish(runs.start(*runs.train_words(workdir)))
        return [
            ("full disk: exit status", process.returncode),
            ("full disk: said so in one line", "could not save a checkpoint" in said),
            ("full disk: the last checkpoint is good", good),
            ("full disk: ends like the undisturbed run", same_end(runs, workdir, undisturbed)),
        ]


def _fill(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Mounts a small file system in a folder, which takes the rights of root."""
    folder.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={DISK_BYTES}".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options):
        raise PermissionError(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)
