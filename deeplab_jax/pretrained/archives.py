"""Which file of weights a path means, also inside an untrusted archive."""

import contextlib
import gzip
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import check_member_path

TAR_SUFFIXES, ZIP_SUFFIXES = (".tar.gz", ".tgz", ".tar"), (".zip",)
# The largest released archives unpack to less than 1 GiB.
MAX_BYTES = 4 * 2**30
# Long names and extended headers are read into memory.
MAX_HEADER_BYTES = 2**16
READ_BYTES = 2**16
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


def is_archive(path: Path) -> bool:
    """Returns whether a path has the suffix of an archive."""
    return path.name.endswith(TAR_SUFFIXES + ZIP_SUFFIXES)


def extract(
    archive: Path, folder: Path, wanted: re.Pattern[str], max_bytes: int = MAX_BYTES
) -> None:
    """Extracts the files whose paths match a pattern, without their folders.

    Args:
      archive: path that ends in one of TAR_SUFFIXES or ZIP_SUFFIXES.
      folder: directory that receives the files under their last name.
      wanted: pattern that is searched in the paths.
      max_bytes: maximum size of the whole unpacked content, whether it matches or not.

    Raises:
      DeepLabError: the archive is damaged or unpacks to more than `max_bytes`, a path in it leads
        out of it, or a matching member is not a regular file or occurs twice.
    """
    unpack = _unpack_tar if archive.name.endswith(TAR_SUFFIXES) else _unpack_zip
    left = max_bytes
    try:
        for name, content in unpack(archive, wanted, max_bytes):
            left -= _copy(content, folder / PurePosixPath(name).name, left)
    except DeepLabError as error:
        raise DeepLabError(f"{archive}: {error}") from error
    except (*DAMAGED, gzip.BadGzipFile, RuntimeError, NotImplementedError) as error:
        # zipfile raises the last two for encrypted members and unknown compression methods.
        raise DeepLabError(f"{archive} is damaged or no such archive: {error}") from error


Members = Iterator[tuple[str, BinaryIO]]


def _unpack_tar(archive: Path, wanted: re.Pattern[str], max_bytes: int) -> Members:
    opener = open if archive.name.endswith(".tar") else gzip.open
    with opener(archive, "rb") as compressed:
        stream = _Limited(compressed, max_bytes)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedInfo) as tar:
            for member in tar:
                is_regular = member.isreg() and not member.issparse()
                if _is_wanted(member.name, wanted, member.isdir(), is_regular):
                    yield member.name, tar.extractfile(member)
        # The checksum follows the last member.
        while stream.read(READ_BYTES):
            pass


def _unpack_zip(archive: Path, wanted: re.Pattern[str], max_bytes: int) -> Members:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # 8 is a regular file; systems without file types write 0.
            is_regular = member.external_attr >> 28 in (0, 8)
            if _is_wanted(member.filename, wanted, member.is_dir(), is_regular):
                with file.open(member) as content:
                    yield member.filename, content


def _is_wanted(name: str, wanted: re.Pattern[str], is_folder: bool, is_regular: bool) -> bool:
    check_member_path(name)
    # macOS adds a file ._NAME with the metadata of NAME.
    if is_folder or not wanted.search(name) or PurePosixPath(name).name.startswith("._"):
        return False
    if not is_regular:
        raise DeepLabError(f"its member {name!r} is no plain file")
    return True


def _copy(content: BinaryIO, target: Path, max_bytes: int) -> int:
    """Copies at most `max_bytes`; returns the number of bytes copied."""
    if target.exists():
        raise DeepLabError(f"it holds {target.name} twice")
    with target.open("wb") as file:
        shutil.copyfileobj(_Limited(content, max_bytes), file)
        return file.tell()


class _Limited(io.RawIOBase):
    """File that raises an error when more than `max_bytes` are read."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file, self._left, self._max_bytes = file, max_bytes, max_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DeepLabError(f"it unpacks to more than {self._max_bytes:,} bytes")
        return data


class _CheckedInfo(tarfile.TarInfo):
    """Header of a member; raises an error if tarfile would read a huge one into memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in tarfile.REGULAR_TYPES and info.size > MAX_HEADER_BYTES:
            raise DeepLabError(f"it has a header of {info.size:,} bytes")
        return info


INDEX = ".index"
# The files of a TensorFlow checkpoint share the prefix of their names.
PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
DATA = re.compile(r"\.data-\d+-of-(\d+)$")
# In order of preference: a checkpoint holds more than a graph beside it.
SUFFIXES = (INDEX, ".ckpt", ".safetensors", ".pth", ".pt", ".bin", ".tflite", ".mlmodel", ".pb")
# Names that Hugging Face gives to the weights of a directory.
USUAL_NAMES = ("model.safetensors", "pytorch_model.bin")
# TensorFlow's list of a directory's checkpoints names the last one.
STATE, LATEST = "checkpoint", re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)


@contextlib.contextmanager
def unpacked(path: Path, scratch: Path | None = None, member: str = "") -> Iterator[Path]:
    """Yields the path of the weights; those of an archive exist until the block ends.

    Args:
      path: a path that `find_weights` accepts, or an archive of one file or checkpoint.
      scratch: directory to unpack in.
      member: text that the wanted paths in the archive contain.

    Raises:
      DeepLabError: there are no weights, or several files of them.
    """
    if not (is_archive(path) and path.is_file()):
        yield find_weights(path)
        return
    endings = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    wanted = re.compile(rf"{re.escape(member)}.*({endings}|\.data-\d+-of-\d+)$")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".unpacking-") as folder:
        extract(path, Path(folder), wanted)
        try:
            found = find_weights(Path(folder))
        except DeepLabError as error:
            # The temporary folder means nothing to the user.
            raise DeepLabError(str(error).replace(folder, str(path))) from error
        yield found


def is_there(path: Path) -> bool:
    """Returns whether a path is a file, a directory or the prefix of a TensorFlow checkpoint."""
    return path.exists() or index_of(path).exists()


def index_of(prefix: Path) -> Path:
    """Returns the index file of a TensorFlow checkpoint."""
    return prefix.with_name(prefix.name + INDEX)


def find_weights(path: Path) -> Path:
    """Returns a file of weights, or the prefix of a TensorFlow checkpoint.

    Args:
      path: a file, the prefix or any file of a checkpoint, or a directory with one of these.

    Raises:
      DeepLabError: a directory holds no weights or several files of them, or a checkpoint has no
        index.
    """
    if path.is_dir():
        path = _only_one(path)
    prefix = path.with_name(PART_OF_CHECKPOINT.sub("", path.name))
    if index_of(prefix).exists():
        return prefix
    if DATA.search(path.name):
        raise DeepLabError(f"{path} requires {index_of(prefix).name} beside it")
    return path


def _only_one(folder: Path) -> Path:
    """Returns the only file of a known suffix, the last checkpoint, or the usual file name."""
    visible = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    state = folder / STATE
    latest = LATEST.search(state.read_text("utf-8", "replace")) if state.is_file() else None
    preferred = (*USUAL_NAMES, Path(latest[1]).name + INDEX if latest else "")
    for suffix in SUFFIXES:
        found = [file for file in visible if file.name.endswith(suffix)]
        if len(found) > 1:
            found = [file for file in found if file.name in preferred] or found
        if len(found) > 1:
            names = ", ".join(file.name.removesuffix(INDEX) for file in found)
            raise DeepLabError(f"{folder} holds several files of weights: {names}; give one")
        if found:
            return found[0]
    raise DeepLabError(f"{folder} holds no weights; legal: files that end in {', '.join(SUFFIXES)}")
