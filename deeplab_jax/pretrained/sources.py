"""Which file of weights a path means: itself, the one in a directory, or the one in an archive."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.archives import extract, is_archive

# The files of a checkpoint share their beginning, which is its name.
PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
INDEX = ".index"
# The best to convert first: of one network a graph tells less than the checkpoint beside it.
SUFFIXES = (INDEX, ".ckpt", ".safetensors", ".pth", ".pt", ".bin", ".tflite", ".mlmodel", ".pb")


@contextlib.contextmanager
def unpacked(path: Path, scratch: Path | None = None, member: str = "") -> Iterator[Path]:
    """Gives the path of the weights; what an archive holds is there as long as the block runs.

    Args:
      path: of a file of weights, the beginning of a checkpoint's files, a directory with one file
        of weights, or an archive of one.
      scratch: directory to unpack in.
      member: what the paths in the archive must hold.

    Raises:
      DeepLabError: there is nothing, or more than one.
    """
    if path.is_dir():
        yield _only_one(path, path)
    elif is_archive(path) and path.is_file():
        endings = "|".join(re.escape(suffix) for suffix in SUFFIXES)
        wanted = re.compile(rf"{re.escape(member)}.*({endings}|\.data-\d+-of-\d+)$")
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".unpacking-") as folder:
            extract(path, Path(folder), wanted)
            try:
                yield _only_one(Path(folder), path)
            except DeepLabError as error:
                # Nobody knows the temporary folder.
                raise DeepLabError(str(error).replace(folder, str(path))) from error
    else:
        yield _name_of_checkpoint(path)


def is_there(path: Path) -> bool:
    """Whether a path is a file, a directory or the beginning of a checkpoint's files."""
    return path.exists() or path.with_name(path.name + INDEX).exists()


def _only_one(folder: Path, origin: Path) -> Path:
    for suffix in SUFFIXES:
        found = sorted(
            file
            for file in folder.iterdir()
            if file.name.endswith(suffix) and not file.name.startswith(".")
        )
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise DeepLabError(f"{origin} holds several files of weights: {names}; give one")
        if found:
            return _name_of_checkpoint(found[0])
    raise DeepLabError(f"{origin} holds no weights; legal: files that end in {', '.join(SUFFIXES)}")


def _name_of_checkpoint(path: Path) -> Path:
    return path.with_name(PART_OF_CHECKPOINT.sub("", path.name))
