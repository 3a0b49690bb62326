"""The file of weights that a path means, also inside an untrusted archive."""

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

TAR_SUFFIXES, ZIP_SUFFIXES = (".tar.gz", ".tgz", ".tar"), (".zip",)
# The largest released archives unpack to less than 1 GiB.
MAX_BYTES = 4 * 2**30
# Long names and extended headers are read into memory.
MAX_HEADER_BYTES = 2**16
READ_BYTES = 2**16
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


def is_archive(path: Path) -> bool:
    """Whether a path ends as an archive does."""
    return path.name.endswith(TAR_SUFFIXES + ZIP_SUFFIXES)


def extract(
    archive: Path, folder: Path, wanted: re.Pattern[str], max_bytes: int = MAX_BYTES
) -> None:
    """Extracts the files whose paths fit a pattern; nothing else, and no folders.

    Args:
      archive: ends in one of TAR_SUFFIXES or ZIP_SUFFIXES.
      folder: takes the files under their last name.
      wanted: searched in the paths.
      max_bytes: of everything unpacked, wanted or not.

    Raises:
      DeepLabError: the archive is damaged, unpacks to too much, a path in it leads out of it, or a
        wanted member is no plain file or comes twice.
    """
    unpack = _unpack_tar if archive.name.endswith(TAR_SUFFIXES) else _unpack_zip
    left = max_bytes
    try:
        for name, content in unpack(archive, wanted, max_bytes):
            left -= _copy(content, folder / PurePosixPath(name).name, left)
    except DeepLabError as error:
        raise DeepLabError(f"{archive}: {error}") from error
    except (*DAMAGED, gzip.BadGzipFile, RuntimeError, NotImplementedError) as error:
        # zipfile raises the last two for encrypted members and methods that it does not know.
        raise DeepLabError(f"{archive} is damaged or no such archive: {error}") from error


def _unpack_tar(
    archive: Path, wanted: re.Pattern[str], max_bytes: int
) -> Iterator[tuple[str, BinaryIO]]:
    opener = open if archive.name.endswith(".tar") else gzip.open
    with opener(archive, "rb") as compressed:
        stream = _Limited(compressed, max_bytes)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedInfo) as tar:
            yield from _members(tar, wanted)
        # The checksum comes last.
        while stream.read(READ_BYTES):
            pass


def _members(tar: tarfile.TarFile, wanted: re.Pattern[str]) -> Iterator[tuple[str, BinaryIO]]:
    for member in tar:
        _check_path(member.name)
        if not _is_wanted(member.name, wanted) or member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DeepLabError(f"its member {member.name!r} is no plain file")
        yield member.name, tar.extractfile(member)


def _unpack_zip(
    archive: Path, wanted: re.Pattern[str], max_bytes: int
) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            _check_path(member.filename)
            if not _is_wanted(member.filename, wanted) or member.is_dir():
                continue
            kind = member.external_attr >> 28
            # 8 is a plain file; systems without such kinds write 0.
            if kind not in (0, 8):
                raise DeepLabError(f"its member {member.filename!r} is no plain file")
            with file.open(member) as content:
                yield member.filename, content


def _is_wanted(name: str, wanted: re.Pattern[str]) -> bool:
    # macOS adds a file ._NAME with what its file system knows of NAME.
    return bool(wanted.search(name)) and not PurePosixPath(name).name.startswith("._")


def _check_path(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise DeepLabError(f"its member {name!r} leads out of the archive")


def _copy(content: BinaryIO, target: Path, max_bytes: int) -> int:
    """Copies at most `max_bytes`; returns the number of bytes copied."""
    if target.exists():
        raise DeepLabError(f"it holds {target.name} twice")
    with target.open("wb") as file:
        shutil.copyfileobj(_Limited(content, max_bytes), file)
        return file.tell()


class _Limited(io.RawIOBase):
    """File that refuses to be read beyond `max_bytes`."""

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
    """Refuses headers so large that reading them would fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type in HEADERS and info.size > MAX_HEADER_BYTES:
            raise DeepLabError(f"it has a header of {info.size:,} bytes")
        return info


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
