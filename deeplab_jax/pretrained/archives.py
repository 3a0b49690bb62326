"""Finds the weights file in a directory or an untrusted archive."""

import contextlib
import errno
import gzip
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

from deeplab_jax.errors import DeepLabError
from deeplab_jax.listing import check_member_path

TAR_SUFFIXES, ZIP_SUFFIXES = (".tar.gz", ".tgz", ".tar"), (".zip",)
# Suffixes of files that torch.save writes. In spite of their names, they are not tar archives.
TORCH_TAR_SUFFIXES = (".pth.tar", ".pt.tar")
# First bytes of files that torch.save writes: those of a zip archive or, in its older format, those
# of a pickle of protocol 2 or 3.
TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02\x8a\n", b"\x80\x03\x8a\n")
# Maximum unpacked size of an archive. The largest released archives unpack to less than 1 GiB.
MAX_BYTES = 4 * 2**30
# Maximum size of a tar header, since long names and extended headers are read into memory.
MAX_HEADER_BYTES = 2**16
READ_BYTES = 2**16
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


def has_suffix(path: Path, suffixes: str | tuple[str, ...]) -> bool:
    """Returns whether a file name ends in one of the suffixes, in upper or lower case.

    Args:
      path: path of the file.
      suffixes: one or several suffixes in lower case.
    """
    return path.name.lower().endswith(suffixes)


def is_torch(path: Path) -> bool:
    """Returns whether a file begins like the files that torch.save writes."""
    with path.open("rb") as file:
        return file.read(4) in TORCH_MAGIC


def is_archive(path: Path) -> bool:
    """Returns whether a path has the suffix of an archive and was not written by torch.save."""
    if has_suffix(path, TORCH_TAR_SUFFIXES):
        return False
    # The documentation of PyTorch recommends the suffix `.tar` for checkpoints.
    if has_suffix(path, ".tar") and path.is_file() and is_torch(path):
        return False
    return has_suffix(path, TAR_SUFFIXES + ZIP_SUFFIXES)


def extract(
    archive: Path, folder: Path, wanted: re.Pattern[str], max_bytes: int = MAX_BYTES
) -> None:
    """Extracts the files of an archive whose paths match a pattern.

    Args:
      archive: path that ends in `.tar.gz`, `.tgz`, `.tar` or `.zip`.
      folder: directory that receives the files, in the subdirectories of the archive.
      wanted: pattern to search for in the paths.
      max_bytes: maximum unpacked size of the archive; tar members that do not match count, too.

    Raises:
      DeepLabError: the archive is damaged or unpacks to more than `max_bytes`; no space is left on
        the disk; a member has a path that leads out of `folder`; or a matching member is not a
        regular file, or has the path of another matching member.
    """
    unpack = _unpack_tar if has_suffix(archive, TAR_SUFFIXES) else _unpack_zip
    left = max_bytes
    try:
        for name, content in unpack(archive, wanted, max_bytes):
            left -= _copy(_Limited(content, left, max_bytes), folder, PurePosixPath(name))
    except DeepLabError as error:
        raise DeepLabError(f"{archive}: {error}") from error
    except (*DAMAGED, gzip.BadGzipFile, RuntimeError, NotImplementedError) as error:
        # zipfile raises the last two for encrypted members and unknown compression methods.
        raise DeepLabError(f"{archive} is damaged or not an archive: {error}") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DeepLabError(
            f"{archive}: no space is left in {folder.parent}, where it is unpacked; free some, or "
            "set TMPDIR (for pretrained weights: DEEPLAB_CACHE) to another disk"
        ) from error


Members = Iterator[tuple[str, IO[bytes]]]


def _unpack_tar(archive: Path, wanted: re.Pattern[str], max_bytes: int) -> Members:
    opener = open if has_suffix(archive, ".tar") else gzip.open
    with opener(archive, "rb") as compressed:
        stream = _Limited(compressed, max_bytes, max_bytes)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedInfo) as tar:
            for member in tar:
                is_regular = member.isreg() and not member.issparse()
                if _is_wanted(member.name, wanted, member.isdir(), is_regular):
                    content = tar.extractfile(member)
                    if content is not None:
                        yield member.name, content
        # The checksum follows the last member.
        while stream.read(READ_BYTES):
            pass


def _unpack_zip(archive: Path, wanted: re.Pattern[str], max_bytes: int) -> Members:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # 8: regular file; 0: written by systems without file types.
            is_regular = member.external_attr >> 28 in (0, 8)
            if _is_wanted(member.filename, wanted, member.is_dir(), is_regular):
                with file.open(member) as content:
                    yield member.filename, content


def _is_wanted(name: str, wanted: re.Pattern[str], is_folder: bool, is_regular: bool) -> bool:
    check_member_path(name)
    # For each file NAME, macOS adds a file ._NAME with metadata.
    if is_folder or not wanted.search(name) or PurePosixPath(name).name.startswith("._"):
        return False
    if not is_regular:
        raise DeepLabError(
            f"the archive member {name!r} is not a regular file; unpack the archive, and give the "
            "path of the weights"
        )
    return True


def _copy(content: "_Limited", folder: Path, name: PurePosixPath) -> int:
    """Copies a file to `folder / name`, and returns the number of bytes."""
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise DeepLabError(
            f"the path {name} conflicts with another entry of the archive; unpack the archive, and "
            "give the path of the weights"
        ) from error
    with file:
        shutil.copyfileobj(content, file)
        return file.tell()


class _Limited(io.RawIOBase):
    """Read-only file that raises an error if more than `left` bytes are read from it.

    The message contains `max_bytes`, the limit for the whole archive.
    """

    def __init__(self, file: IO[bytes] | io.BufferedIOBase, left: int, max_bytes: int) -> None:
        self._file, self._left, self._max_bytes = file, left, max_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DeepLabError(
                f"the archive unpacks to more than {self._max_bytes:,} bytes; unpack it with "
                "another program, and give the path of the weights"
            )
        return data


class _CheckedInfo(tarfile.TarInfo):
    """Tar header that raises an error if its extended data exceeds MAX_HEADER_BYTES.

    Extended data, such as a long name, is read into memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in tarfile.REGULAR_TYPES and info.size > MAX_HEADER_BYTES:
            raise DeepLabError(
                f"the archive has a header of {info.size:,} bytes, above the limit of "
                f"{MAX_HEADER_BYTES:,}; unpack the archive with another program, and give the path "
                "of the weights"
            )
        return info


INDEX = ".index"
# The files of a TensorFlow checkpoint share the prefix of their names.
PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
DATA = re.compile(r"\.data-\d+-of-(\d+)$")
# Suffixes of weights in order of preference. A checkpoint is preferred to a graph in the same
# directory, because it contains more variables.
SUFFIXES = (
    *(INDEX, ".ckpt", ".safetensors", ".pth", ".pt", *TORCH_TAR_SUFFIXES, ".bin"),
    *(".tflite", ".mlmodel", ".pb"),
)
# Usual names of the weights on Hugging Face.
USUAL_NAMES = ("model.safetensors", "pytorch_model.bin")
# File in which TensorFlow lists the checkpoints of a directory, and its entry for the last one.
STATE, LATEST = "checkpoint", re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)
# File with the settings of a network, which several codebases write beside the weights.
CONFIGURATION = "config.json"


@contextlib.contextmanager
def unpacked(path: Path, scratch: Path | None = None, member: str = "") -> Iterator[Path]:
    """Yields the path of the weights file, or the prefix of the TensorFlow checkpoint.

    The files in an archive are unpacked, and are removed after the `with` block.

    Args:
      path: a weights file; the prefix or any file of a TensorFlow checkpoint; or a directory or an
        archive with one of these.
      scratch: directory in which a temporary directory for the unpacked files is created; None: the
        temporary directory of the operating system.
      member: text that the path of the weights file inside an archive must contain.

    Raises:
      DeepLabError: the archive cannot be unpacked (see `extract`), or the weights file cannot be
        determined (see `find_weights`).
    """
    if not (is_archive(path) and path.is_file()):
        yield find_weights(path)
        return
    endings = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    weights = rf"{re.escape(member)}.*(?i:{endings}|\.data-\d+-of-\d+)$"
    beside = "|".join(map(re.escape, (CONFIGURATION, STATE)))
    wanted = re.compile(rf"{weights}|(^|/)({beside})$")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".unpacking-") as folder:
        extract(path, Path(folder), wanted)
        try:
            files = (file for file in Path(folder).rglob("*") if file.is_file())
            found = find_weights(_only_one(Path(folder), files))
        except DeepLabError as error:
            # The message contains the archive in place of the temporary directory.
            raise DeepLabError(str(error).replace(folder, str(path))) from error
        yield found


def is_there(path: Path) -> bool:
    """Returns whether a path is an existing file, directory or TensorFlow checkpoint prefix."""
    return path.exists() or index_of(path).exists()


def index_of(prefix: Path) -> Path:
    """Returns the path of the index file of a TensorFlow checkpoint, given its prefix."""
    return prefix.with_name(prefix.name + INDEX)


def find_weights(path: Path) -> Path:
    """Returns the path of the weights file, or the prefix of a TensorFlow checkpoint.

    Args:
      path: a weights file, the prefix or any file of a TensorFlow checkpoint, or a directory with
        one of these.

    Raises:
      DeepLabError: the directory contains no weights file, or several files that the rules of
        `_only_one` do not distinguish; or the checkpoint has no index.
    """
    if path.is_dir():
        path = _only_one(path, path.iterdir())
    prefix = path.with_name(PART_OF_CHECKPOINT.sub("", path.name))
    if index_of(prefix).exists():
        return prefix
    if DATA.search(path.name):
        raise DeepLabError(
            f"{path} is part of a TensorFlow checkpoint, but {index_of(prefix).name} is missing; "
            "put it into the same directory"
        )
    return path


def _only_one(folder: Path, files: Iterable[Path]) -> Path:
    """Returns the weights file among the files of a directory.

    If there are files with a name in `USUAL_NAMES`, all others are ignored. `SUFFIXES` lists the
    suffixes in order of preference. Only files with the most preferred suffix that occurs in the
    directory are considered. If there are several, the result is the index of the last TensorFlow
    checkpoint.

    Args:
      folder: the directory, for the error message.
      files: files in the directory or below it.

    Raises:
      DeepLabError: no file has one of the suffixes, or these rules do not select a single file.
    """
    visible = [file for file in sorted(files) if not file.name.startswith(".")]
    usual = [file for file in visible if file.name in USUAL_NAMES]
    for suffix in SUFFIXES:
        found = [file for file in usual or visible if has_suffix(file, suffix)]
        if len(found) > 1:
            found = [file for file in found if _is_last_checkpoint(file)] or found
        if len(found) > 1:
            names = ", ".join(str(file.relative_to(folder)).removesuffix(INDEX) for file in found)
            raise DeepLabError(
                f"{folder} contains several weights files: {names}; give the path of one of them "
                "(if they are in an archive, unpack it first)"
            )
        if found:
            return found[0]
    raise DeepLabError(
        f"{folder} contains no weights; legal: files that end in {', '.join(SUFFIXES)}"
    )


def _is_last_checkpoint(file: Path) -> bool:
    """Returns whether a file is the index of the last TensorFlow checkpoint of its directory.

    The file `checkpoint` in the same directory contains the name of the last checkpoint.
    """
    state = file.with_name(STATE)
    latest = LATEST.search(state.read_text("utf-8", "replace")) if state.is_file() else None
    return latest is not None and file.name == Path(latest[1]).name + INDEX
