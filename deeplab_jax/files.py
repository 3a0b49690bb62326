"""Paths on this machine and in buckets, atomic writing, and directories of caches."""

import contextlib
import functools
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from deeplab_jax.errors import DeepLabError


def as_path(place: str | os.PathLike[str]) -> Path:
    """Converts a string to a path; gs://BUCKET/… and s3://BUCKET/… are paths in a bucket.

    `~` at the start of a local path is replaced by the home directory, since shells do not replace
    it in `--flag=~/path`. Local paths and paths in a bucket have the same methods. gs:// requires
    the package gcsfs or tensorflow, and s3:// requires s3fs.

    Raises:
      DeepLabError: the path begins with gs:// and neither gcsfs nor tensorflow is installed, or it
        begins with an unknown scheme such as http://, or with gs:/ or s3:/.
    """
    if is_local(place):
        scheme, slash, _ = str(place).partition(":/")
        if slash and scheme in SCHEMES:
            raise DeepLabError(
                f"{place}: paths in a bucket begin with {scheme}://; in Python, give a string or "
                "an epath.Path, because pathlib.Path removes a slash"
            )
        # Unlike Path.expanduser, this accepts names such as `~draft`, which begin with ~ as well.
        return Path(os.path.expanduser(place))
    _prepare_buckets()
    scheme = str(place).partition("://")[0]
    if scheme == "gs" and not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise DeepLabError(f"{place} requires gcsfs; run pip install 'deeplab_jax[gcs]'")
    if scheme not in SCHEMES:
        raise DeepLabError(
            f"{place}: unknown kind of bucket {scheme}://; expected a local path, or a path "
            f"that begins with {' or '.join(f'{known}://' for known in SCHEMES)}"
        )
    return epath.Path(place)


# Kinds of buckets. A workdir of `train` must not be in S3; see `check_workdir`.
SCHEMES = ("gs", "s3")


@functools.cache
def _prepare_buckets() -> None:
    """Disables fsspec's caches of directory listings.

    A cached listing lacks files that other processes or TensorStore wrote after it was cached.
    """
    with contextlib.suppress(ImportError):
        from fsspec.config import conf

        for scheme in (*SCHEMES, "gcs"):
            conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)


def is_local(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is on this machine."""
    return "://" not in str(path)


def absolute(path: str | os.PathLike[str]) -> epath.Path:
    """Returns the absolute path that Orbax requires, on this machine or in a bucket."""
    place = as_path(path)
    return epath.Path(place.absolute() if is_local(path) else place)


def remove_directory(path: Path) -> None:
    """Removes a directory with its files, on this machine or in a bucket."""
    if is_local(path):
        shutil.rmtree(path)
        return
    bucket_path = epath.Path(path)
    bucket_path.rmtree(missing_ok=True)
    # An empty object that represents a folder can hide the files in the folder from the first call.
    bucket_path.rmtree(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file path, and moves the file to `path` if the `with` block succeeds.

    Parent directories are created. If the block fails, the temporary file is removed, and `path` is
    unchanged. The temporary file is in a temporary directory and has the file name of `path`,
    because some libraries choose the file format by the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent if is_local(path) else None
    with tempfile.TemporaryDirectory(dir=beside, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if is_local(path):
            os.replace(temporary, path)
        else:
            # Writing an object to a bucket is atomic.
            path.write_bytes(temporary.read_bytes())


@contextlib.contextmanager
def replacing_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary directory, and moves it to `path` if the `with` block succeeds.

    If `path` is a symbolic link, the directory that it points to is written, and the link is kept.

    Args:
      path: path of the directory.
      overwrite: whether to replace an existing file or directory at `path` (default: False).

    Raises:
      DeepLabError: `path` is a mount point or the current directory, which cannot be replaced; or
        `overwrite` is False, and `check_new_directory` does not accept `path`.
      OSError: `overwrite` is True, and the parent directory of `path` cannot be written.
    """
    if not overwrite:
        check_new_directory(path)
    check_replaceable(path)
    if is_local(path):
        # A directory cannot be moved to a link or to `..`.
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent if is_local(path) else None
    with tempfile.TemporaryDirectory(dir=beside, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        temporary.mkdir()
        yield temporary
        if not is_local(path):
            if overwrite and path.exists():
                remove_directory(path)
            _upload(temporary, path)
            return
        if overwrite and path.exists():
            os.replace(path, Path(folder) / f"{path.name}.replaced")
        # `path` may be an empty directory, which this replaces.
        os.replace(temporary, path)


def _upload(folder: Path, path: Path) -> None:
    """Copies a directory on this machine into a bucket."""
    # Files at the top level describe the others. They are copied last, and mark a complete copy.
    names = [one.relative_to(folder) for one in folder.rglob("*") if one.is_file()]
    for name in sorted(names, key=lambda name: (len(name.parts) == 1, name)):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((folder / name).read_bytes())


@contextlib.contextmanager
def local_output(path: Path) -> Iterator[Path]:
    """Yields a path on this machine, to which the `with` block writes a file or directory.

    If `path` is on this machine, `path` itself is yielded. If `path` is in a bucket, a temporary
    path is yielded; when the `with` block succeeds, the file or directory is copied to `path`, and
    replaces an existing one.
    """
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="output-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if temporary.is_dir():
            if path.exists():
                remove_directory(path)
            _upload(temporary, path)
        else:
            path.write_bytes(temporary.read_bytes())


def check_new_directory(path: Path) -> None:
    """Checks that `replacing_directory` can write to `path`, and that nothing would be overwritten.

    Raises:
      DeepLabError: `path` exists and is not an empty directory, or cannot be written or replaced.
    """
    check_empty(path)
    check_replaceable(path)
    # On this machine, the directory is written beside `path` and then moved. In a bucket, a check
    # in `path` itself could leave an empty directory.
    check_output_directory((Path(os.path.realpath(path)) if is_local(path) else path).parent)


def check_empty(path: Path) -> None:
    """Checks that nothing would be overwritten: `path` is an empty directory or does not exist.

    Raises:
      DeepLabError: `path` exists and is not an empty directory.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DeepLabError(
            f"{path} exists and is not an empty directory; give another directory, or remove {path}"
        )


def check_replaceable(path: Path) -> None:
    """Checks that a directory can be moved to `path`.

    Raises:
      DeepLabError: `path` is a mount point or the current directory.
    """
    if not is_local(path) or not path.is_dir():
        return
    if os.path.ismount(os.path.realpath(path)) or os.path.samefile(path, os.curdir):
        raise DeepLabError(
            f"{path} is a mount point or the current directory, which cannot be replaced; give a "
            "new directory inside it"
        )


def check_writable(directory: Path) -> None:
    """Creates a directory if needed, and checks that files can be written into it.

    Raises:
      DeepLabError: the directory cannot be created, or no file can be written into it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeepLabError(
            f"{directory} cannot be written ({reason}); change its permissions, or give another "
            "directory"
        ) from error


def check_output_directory(directory: Path) -> None:
    """Checks that files can be written into a directory, which may not exist yet.

    If the directory does not exist on this machine, its nearest existing parent directory is
    checked instead. If it does not exist in a bucket, the check creates it.

    Raises:
      DeepLabError: no file can be written into the checked directory.
    """
    while is_local(directory) and not directory.exists():
        directory = directory.parent
    check_writable(directory)


def check_output_file(path: Path) -> None:
    """Checks that a file can be written to a path, whose parent directory may not exist yet.

    The parent directory is checked by `check_output_directory`.

    Raises:
      DeepLabError: `path` is a directory, or no file can be written into its parent directory.
    """
    check_output_directory(path.parent)
    if path.is_dir():
        raise DeepLabError(f"{path} is a directory; give the path of a file in it")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def cache_directory() -> Path:
    """Returns the directory for downloads and converted models.

    It is $DEEPLAB_CACHE, or ~/.cache/deeplab_jax if that variable is not set.
    """
    directory = os.environ.get("DEEPLAB_CACHE") or "~/.cache/deeplab_jax"
    return Path(os.path.expanduser(directory))


PROGRAM_CACHE, PROGRAM_SUFFIX = "DEEPLAB_PROGRAM_CACHE", ".stablehlo"
# Suffix of the ONNX and TFLite files that engines export and cache beside the traced programs.
ENGINE_SUFFIX = ".engine"
# Name of the network's file in the directory of an exported web page.
PAGE_NETWORK = "model.onnx"
# Runtimes of a network, with the suffix by which an exported file is recognized as a model.
ENGINES = {"jax": ".stablehlo", "onnx": ".onnx", "tflite": ".tflite"}


def is_exported(reference: str | os.PathLike[str]) -> bool:
    """Returns whether a model reference is the path of an exported file.

    Exported files are existing files with the suffix `.stablehlo`, `.onnx` or `.tflite`. Other
    model references are names, workdirs and model directories.
    """
    path = Path(os.path.expanduser(reference))
    return path.suffix.lower() in ENGINES.values() and path.is_file()


def program_directory() -> Path | None:
    """Returns $DEEPLAB_PROGRAM_CACHE, the cache directory for traced programs; None if not set."""
    directory = os.environ.get(PROGRAM_CACHE)
    return Path(os.path.expanduser(directory)) if directory else None


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
