"""Spoilt images and masks through what `prepare` and `predict` do."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from mutations import NUM_CLASSES, Mutant, class_map, encoded, mutants, photo
from reporters import RecordingReporter
from stand_ins import RedReader

from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.data.images import read_image
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import Predictor, plan_files, predict_files, readable_files
from deeplab_jax.reporter import Reporter

NAMES = ("sky", "tree", "road", "car")
SUFFIXES = ".jpg .png .bmp .tif .webp"
MASK_SUFFIXES = ".png .bmp .tif"
# A file that takes longer hangs; one that takes more memory blows it up. The limit on pixels allows
# 179 million, three bytes each, twice while they are converted.
SECONDS, MEMORY_BYTES = 20.0, 3 * 2**29


@dataclasses.dataclass
class Tally:
    """What became of the files.

    Attributes:
      kinds: files, by what was done to them.
      read, refused: files by what came of them.
      wrong: what should not have happened, a line each.
      slowest, most_memory: seconds and bytes that a file took.
    """

    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    read: int = 0
    refused: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    slowest: float = 0.0
    most_memory: int = 0

    def rows(self) -> list[tuple[str, object]]:
        """What a table shows."""
        return [
            ("spoilt images and masks", self.kinds.total()),
            ("of them still readable", self.read),
            ("refused in one line that names the file", self.refused),
            ("crashes, hangs, and other things wrong", len(self.wrong)),
            ("slowest file, seconds of a core", round(self.slowest, 1)),
            ("most memory for a file, MiB", self.most_memory // 2**20),
        ]


def spoil(folder: pathlib.Path, count: int, seed: int) -> list[tuple[pathlib.Path, Mutant]]:
    """Writes images/ and masks/ of pairs, each with one of the two spoilt; returns those.

    Every tenth pair is good.
    """
    random, found = np.random.default_rng(seed), []
    spoilt_images = mutants(photo(random), random, count // 2, SUFFIXES)
    spoilt_masks = mutants(class_map(random), random, count - count // 2, MASK_SUFFIXES)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    kinds = [("images", mutant) for mutant in spoilt_images]
    kinds += [("masks", mutant) for mutant in spoilt_masks]
    for number, (where, mutant) in enumerate(kinds):
        path = folder / where / f"{number:04}{mutant.suffix}"
        path.write_bytes(mutant.content)
        found.append((path, mutant))
        other = "masks" if where == "images" else "images"
        _write_good(folder, other, f"{number:04}", random)
    for number in range(count // 10):
        for name in ("images", "masks"):
            _write_good(folder, name, f"good{number:04}", random)
    return found


def _write_good(folder: pathlib.Path, where: str, name: str, random: np.random.Generator) -> None:
    image = photo(random) if where == "images" else class_map(random)
    (folder / where / f"{name}.png").write_bytes(encoded(image, "PNG"))


def read_each(files: list[tuple[pathlib.Path, Mutant]], builder: Folder, tally: Tally) -> set[str]:
    """Reads each pair as `prepare` does, one after the other; returns the names of the bad ones."""
    split_of = {name: split for split, names in builder.image_ids().items() for name in names}
    bad = set()
    for path, mutant in files:
        tally.kinds[mutant.kind] += 1
        load = functools.partial(builder.load, split_of[path.stem], path.stem)
        if not _reads(path, mutant, load, tally):
            bad.add(path.stem)
    return bad


def _reads(path: pathlib.Path, mutant: Mutant, read: Callable[[], object], tally: Tally) -> bool:
    """Reads a file with an eye on time, memory and errors."""
    before, started = _peak_bytes(), time.process_time()
    try:
        with _time_limit(), warnings.catch_warnings():
            # The commands show none of Pillow's.
            warnings.simplefilter("ignore")
            read()
        tally.read += 1
        return True
    except DeepLabError as error:
        tally.refused += 1
        if path.name not in str(error) or "\n" in str(error):
            tally.wrong.append(f"{path} ({mutant.kind}): {error}")
        return False
    # Whatever it is, it is wrong.
    except BaseException as error:
        tally.wrong.append(f"{path} ({mutant.kind}): {type(error).__name__}: {error}")
        return False
    finally:
        tally.slowest = max(tally.slowest, time.process_time() - started)
        memory = _peak_bytes() - before
        tally.most_memory = max(tally.most_memory, memory)
        if memory > MEMORY_BYTES:
            tally.wrong.append(f"{path} ({mutant.kind}): {memory // 2**20} MiB")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s of a core")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def through_prepare(folder: pathlib.Path, bad: set[str], tally: Tally) -> None:
    """Prepares the whole folder: refused with nothing written, then without the bad ones."""
    data_dir = folder / "data"
    make = functools.partial(Folder, source=folder, data_dir=data_dir)
    try:
        prepare(make, reporter=Reporter())
        tally.wrong.append("prepare took bad files")
    except DeepLabError as error:
        if f"{len(bad) - 1} more" not in str(error):
            tally.wrong.append(f"prepare: {error}")
    if list(data_dir.rglob("*.array_record*")):
        tally.wrong.append("prepare wrote in spite of bad files")
    listening = RecordingReporter()
    prepared = prepare(make, skip_bad=True, reporter=listening)
    counted = sum(split.num_images for split in prepared.statistics.values())
    there = len(list((folder / "images").iterdir())) - len(bad)
    if counted != there or len(prepared.left_out) != len(bad):
        tally.wrong.append(f"prepare kept {counted} of {there}, left out {len(prepared.left_out)}")
    for name in bad:
        listed = [line for line in prepared.left_out if f"/{name}." in line]
        if len(listed) != 1 or listed[0] not in listening.warnings:
            tally.wrong.append(f"prepare does not list {name}: {listed}")


def through_predict(folder: pathlib.Path, tally: Tally) -> None:
    """Predicts all images: refused with nothing written, then without the bad ones."""
    images, output = folder / "images", folder / "predictions"
    jobs = plan_files([images], output)
    good = [job for job in jobs if _is_readable(job.image)]
    try:
        readable_files(jobs, reporter=Reporter())
        tally.wrong.append("predict took bad files")
    except DeepLabError as error:
        if str(images) not in str(error):
            tally.wrong.append(f"predict: {error}")
    if output.exists():
        tally.wrong.append("predict wrote in spite of bad files")
    listening = RecordingReporter()
    kept = readable_files(jobs, skip_bad=True, reporter=listening)
    named = [job.image for job in jobs if any(str(job.image) in t for t in listening.warnings)]
    if kept != good or len(named) != len(jobs) - len(good):
        tally.wrong.append(f"predict kept {len(kept)} of {len(good)}, named {len(named)}")
    if f"skipped {len(jobs) - len(good)} of {len(jobs)}" not in listening.warnings[-1]:
        tally.wrong.append(f"predict says {listening.warnings[-1]}")
    # The largest ones would take long and show nothing more.
    small = [job for job in kept if _pixels(job.image) < 10**6]
    palette = bit_interleaved_palette(NUM_CLASSES)
    predict_files(Predictor(RedReader(), {}, NAMES, palette, None), small, Reporter())
    written = sum(path.is_file() for path in output.rglob("*"))
    if written != 2 * len(small) or not all(job.class_map.is_file() for job in small):
        tally.wrong.append(f"predict wrote {written} files for {len(small)} images")


def _is_readable(path: pathlib.Path) -> bool:
    try:
        read_image(path)
    except DeepLabError:
        return False
    return True


def _pixels(path: pathlib.Path) -> int:
    return read_image(path)[..., 0].size


def spoilt_images(folder: pathlib.Path, count: int, seed: int, say: Callable[[str], None]) -> Tally:
    """Sends so many spoilt images and masks through what `prepare` and `predict` do."""
    folder = folder / f"spoilt_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    tally = Tally()
    files = spoil(folder, count, seed)
    builder = Folder(source=folder, data_dir=folder / "data")
    bad = read_each(files, builder, tally)
    for line in tally.wrong:
        say(line)
    already = len(tally.wrong)
    warnings.simplefilter("ignore")
    say(f"read {len(files)} pairs, {len(bad)} of them bad")
    through_prepare(folder, bad, tally)
    through_predict(folder, tally)
    for line in tally.wrong[already:]:
        say(line)
    return tally
