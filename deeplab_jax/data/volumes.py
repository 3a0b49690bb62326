"""Recognizes files of medical images (DICOM and NIfTI), which are volumes and not pictures."""

import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.listing import visible_files

# Number of bytes at the start of a file from which the formats of medical images are recognized.
VOLUME_HEADER = 544
VOLUME_SUFFIXES = {".dcm": "DICOM", ".dicom": "DICOM", ".nii": "NIfTI", ".nii.gz": "NIfTI"}
# Suffixes of files whose content is checked for a format of medical images.
POSSIBLE_VOLUMES = ("", ".dcm", ".dicom", ".ima", ".nii", ".gz")


def volume_format(start: bytes, name: str) -> str | None:
    """Returns "DICOM" or "NIfTI" if a file has this format of medical images, else None.

    Args:
      start: at least the first 544 bytes of the file.
      name: name of the file. If the content does not show the format, the suffix determines it.
    """
    if start[128:132] == b"DICM":
        return "DICOM"
    header = start
    if start.startswith(b"\x1f\x8b"):
        try:
            header = zlib.decompressobj(wbits=31).decompress(start, VOLUME_HEADER)
        except zlib.error:
            header = b""
    # Magic strings in the headers of NIfTI-1 and NIfTI-2.
    if header[344:347] in (b"n+1", b"ni1") or header[4:7] in (b"n+2", b"ni2"):
        return "NIfTI"
    named = (kind for suffix, kind in VOLUME_SUFFIXES.items() if name.lower().endswith(suffix))
    return next(named, None)


def refuse_volume(start: bytes, name: str) -> None:
    """Raises an error for a file of medical images in the format DICOM or NIfTI.

    Args:
      start: at least the first 544 bytes of the file, or its whole content.
      name: name of the file, whose suffix determines the format if the content does not show it.

    Raises:
      DeepLabError: the file is DICOM or NIfTI.
    """
    if found := volume_format(start[: 2 * VOLUME_HEADER], name):
        raise DeepLabError(
            f"{name}: a {found} file contains the measurements of a scanner, not a picture; "
            "convert volumes and their labels to a folder of slices with "
            "examples/medical_volumes.py (see the guide on medical volumes)"
        )


def refuse_volumes(path: Path) -> None:
    """Raises an error if a path is a file of medical images, or a directory that contains one.

    Raises:
      DeepLabError: a file is DICOM or NIfTI. The message names the first one.
    """
    for file in [path] if path.is_file() else visible_files(path, POSSIBLE_VOLUMES):
        with file.open("rb") as opened:
            refuse_volume(opened.read(2 * VOLUME_HEADER), str(file))


def refuse_ignored_volumes(paths: Sequence[str | Path], inputs: Collection[Path]) -> None:
    """Raises an error if a given directory contains a medical volume, but no input file.

    Args:
      paths: files and directories that the user gives.
      inputs: the files in `paths` that are read.

    Raises:
      DeepLabError: a directory without a file in `inputs` contains a DICOM or NIfTI file.
    """
    for folder in map(as_path, paths):
        if folder.is_dir() and not any(folder in file.parents for file in inputs):
            refuse_volumes(folder)
