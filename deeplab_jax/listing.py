"""Finds the files in a user's directories, and unpacks a user's archives."""

import contextlib
import lzma
import os
import shutil
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError

# Suffixes of the files in a directory that are read as images, and as masks.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
# Suffixes of further pictures, which are not read from a directory.
UNREAD_PICTURES = (".avif", ".gif", ".heic", ".heif", ".jp2", ".pgm", ".ppm")
# Further suffixes for which `absence` looks if an expected file does not exist.
OTHER_SUFFIXES = (".avif", ".heic", ".jp2", ".json", ".npz", ".pgm", ".ppm", ".txt", ".xml")
# Names of files and folders that macOS, Windows and network storage create. They are ignored, like
# all names that begin with a dot.
SYSTEM_NAMES = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db")
HIDDEN = "hidden"


def absolute(path: str | Path) -> Path:
    """Returns the absolute path without `~` and `..`, so that paths can be compared."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def composed(name: str) -> str:
    """Converts a file name to the Unicode form NFC, so that names can be compared.

    macOS stores names in the form NFD, in which an accent is a separate character.
    """
    return unicodedata.normalize("NFC", name)


class Listing(NamedTuple):
    """Files in a directory and its subdirectories.

    Attributes:
      images: paths of the images, sorted.
      left_out: number of files that are not in `images`, by reason. A reason is "hidden", a suffix
        such as ".txt", "without suffix", or "broken symbolic link" with the name of the link.
    """

    images: list[Path]
    left_out: Counter[str]


def is_hidden(path: Path, below: Path) -> bool:
    """Returns whether a path, or one of its parent directories inside `below`, is hidden.

    Hidden names are all that begin with a dot, such as `.ipynb_checkpoints` and `._photo.jpg`, and
    names that operating systems create, such as `__MACOSX` and `Thumbs.db`.
    """
    return any(map(_is_hidden_name, path.relative_to(below).parts))


def _is_hidden_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def visible_files(directory: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yields the files in a directory tree that have one of the suffixes, sorted.

    Hidden files are ignored, and symbolic links are followed; see `is_hidden` and `list_images`.
    """
    for path in sorted(_files_below(directory)):
        if path.suffix.lower() in suffixes and not is_hidden(path, directory):
            yield path


def list_images(directory: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Listing:
    """Lists the images in a directory tree, and counts the other files.

    Symbolic links are followed, except where they form a cycle. A broken link with the suffix of an
    image is listed as an image, so that an attempt to read it reports the error. A broken link with
    another suffix is counted with the other files.

    Args:
      directory: directory to search.
      suffixes: suffixes of images, in lower case.

    Raises:
      DeepLabError: a directory cannot be read; or a symbolic link without suffix, which may have
        been a link to a directory, is broken. Hidden entries, and those below a hidden directory,
        raise no error.
    """
    images: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in sorted(_files_below(directory)):
        if is_hidden(path, directory):
            left_out[HIDDEN] += 1
        elif path.suffix.lower() in suffixes:
            images.append(path)
        elif path.is_symlink() and not path.exists():
            left_out[f"broken symbolic link {path.name}"] += 1
        else:
            left_out[path.suffix.lower() or "without suffix"] += 1
    return Listing(images, left_out)


def _files_below(
    directory: Path, above: tuple[str, ...] = (), is_hidden: bool = False
) -> Iterator[Path]:
    """Yields the files and broken links in a directory tree, including hidden ones.

    Args:
      directory: directory to search; links to directories are followed.
      above: resolved paths of the directories whose search led to `directory`. If `directory` is
        one of them, a link has formed a cycle, and nothing is yielded.
      is_hidden: whether `directory` or a directory above it is hidden. Nothing below it raises an
        error, because hidden files are ignored.

    Raises:
      DeepLabError: see `list_images`.
    """
    real = os.path.realpath(directory)
    if real in above or not directory.is_dir():
        return
    try:
        paths = list(directory.iterdir())
    except OSError as error:
        if is_hidden:
            return
        raise DeepLabError(f"{directory} cannot be read: {error.strerror}") from error
    for path in paths:
        if path.is_dir():
            hidden = is_hidden or _is_hidden_name(path.name)
            yield from _files_below(path, (*above, real), hidden)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            if not (path.suffix or is_hidden or _is_hidden_name(path.name)):
                raise DeepLabError(f"{path}: {absence(path)}")
            yield path


def absence(path: Path) -> str:
    """Returns why there is no file at a path, for an error message.

    If the path or one of its parents is a broken symbolic link, the reason names the target of the
    link. If there is an image, mask or annotation file whose name differs from that of the path
    only in the suffix, the reason names that file.
    """
    places = (path, *path.parents)
    broken = next((one for one in places if one.is_symlink() and not one.exists()), None)
    if broken is not None:
        named = "" if broken == path else f"{broken} is a "
        return f"{named}broken symbolic link to {os.readlink(broken)}; repair or remove it"
    others = (path.with_suffix(suffix) for suffix in (*MASK_SUFFIXES, *OTHER_SUFFIXES))
    other = next((one.name for one in others if path.suffix and one.exists()), None)
    return f"no such file, but there is {other}" if other else "no such file"


# Maximum total size of the unpacked files of an archive, in bytes.
MAX_UNPACKED_BYTES = 32 * 2**30
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
# Flag of a zip member whose name is in UTF-8.
UTF8_NAME = 0x800


def leads_out(name: str) -> bool:
    """Returns whether the archive member `name` would be unpacked outside the target directory."""
    parts = name.replace("\\", "/").split("/")
    # Windows paths begin with a drive, such as C:. Other colons are part of a name: 12:30.png.
    has_drive = parts[0][1:2] == ":"
    return name.startswith(("/", "\\")) or ".." in parts or has_drive or "\0" in name


def check_member_path(name: str) -> None:
    """Checks the path of an archive member.

    Raises:
      DeepLabError: the path leads out of the directory into which the archive is unpacked.
    """
    if leads_out(name):
        raise DeepLabError(
            f"the path {name!r} leads out of the archive; pack relative paths without '..'"
        )


def _member_path(member: zipfile.ZipInfo) -> str:
    """Returns the path of a member of a zip archive, with forward slashes.

    A flag marks names in UTF-8. If it is not set, zipfile decodes the name as code page 437. The
    Finder of macOS writes UTF-8 without the flag. Unmarked names are therefore decoded as UTF-8,
    unless they are not valid UTF-8.
    """
    name = member.filename
    if not member.flag_bits & UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def unpack_zip(archive: Path, directory: Path, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Unpacks the visible files of a user's zip archive.

    Args:
      archive: path of the archive.
      directory: existing directory that receives the files.
      max_bytes: maximum total size of the unpacked files, in bytes.

    Raises:
      DeepLabError: the file is damaged or not a zip archive; the unpacked files exceed `max_bytes`
        or the free disk space; or a member is a link, occurs twice, or has a path that leads out
        of the directory.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            targets = {}
            for member in file.infolist():
                name = _member_path(member)
                check_member_path(name)
                path = directory / name
                # Unlike `is_dir`, this also recognizes directories whose names end in a backslash.
                if name.endswith("/") or is_hidden(path, directory):
                    continue
                # 8 is a regular file; systems without file types write 0.
                if member.external_attr >> 28 not in (0, 8) or path in targets:
                    raise DeepLabError(
                        f"the archive member {name!r} is not a plain file, or occurs "
                        "twice; create the archive again without links or duplicates"
                    )
                targets[path] = member
            # zipfile reads no more bytes of a member than its header declares.
            size = sum(member.file_size for member in targets.values())
            limit = min(max_bytes, shutil.disk_usage(directory).free)
            if size > limit:
                raise DeepLabError(
                    f"the archive unpacks to {size:,} bytes, but at most {limit:,} bytes are "
                    f"allowed (the smaller of the free disk space and {max_bytes:,} bytes); unpack "
                    "the archive, and give the directory"
                )
            for path, member in targets.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as content, path.open("xb") as unpacked:
                    shutil.copyfileobj(content, unpacked)
    except DeepLabError as error:
        raise DeepLabError(f"{archive}: {error}") from error
    except (*DAMAGED_ZIP, EOFError, RuntimeError, OSError, ValueError) as error:
        # zipfile raises RuntimeError for encrypted members and for unknown compression methods.
        raise DeepLabError(f"{archive}: damaged, or not a zip archive: {error}") from error
