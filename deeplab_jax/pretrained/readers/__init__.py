"""Readers of published weights, one per file format, that return named NumPy arrays."""

import importlib
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.archives import (
    INDEX,
    TORCH_TAR_SUFFIXES,
    find_weights,
    has_suffix,
    index_of,
    is_torch,
)
from deeplab_jax.pretrained.readers.tensorflow_checkpoint import checkpoint_file
from deeplab_jax.pretrained.weights import PublishedWeights

# Suffix → module and function of the reader, which is imported on first use.
READERS = {
    ".tflite": ("tflite", "read_tflite"),
    ".mlmodel": ("core_ml", "read_core_ml"),
    **dict.fromkeys((".pth", ".pt", ".bin"), ("state_dict", "read_pytorch")),
    ".safetensors": ("state_dict", "read_safetensors"),
    ".pb": ("frozen_graph", "read_frozen_graph"),
    **dict.fromkeys((INDEX, ".ckpt"), ("tensorflow_checkpoint", "read_checkpoint")),
}

# Beginning of the text file that `git clone` writes in place of a large file without Git LFS.
LFS_POINTER = b"version https://git-lfs.github.com/"


def weights_file(path: Path) -> Path:
    """Returns the file whose checksum identifies the weights.

    For a TensorFlow checkpoint, this is the data file, or the index if there are several
    data files.

    Args:
      path: a weights file, the prefix or any file of a TensorFlow checkpoint, or a directory with
        one of these.

    Raises:
      DeepLabError: a directory has no weights file or more than one, or a checkpoint is incomplete.
    """
    found = find_weights(path)
    return checkpoint_file(found) if index_of(found).is_file() else found


def _suffix(path: Path) -> str:
    """Returns the suffix of a file in lower case.

    For files that torch.save wrote with another suffix, the result is `.pth`. For example, PyTorch
    Lightning writes `epoch=3.ckpt`, and other codebases write `checkpoint.pth.tar` or `model.tar`.
    """
    suffix = path.suffix.lower()
    if suffix in (".ckpt", ".tar") and is_torch(path):
        return ".pth"
    return ".pth" if has_suffix(path, TORCH_TAR_SUFFIXES) else suffix


def read_weights(path: Path, prefer_averages: bool = True) -> PublishedWeights:
    """Reads published weights; the suffix of the file determines the format.

    Args:
      path: a weights file, the prefix or any file of a TensorFlow checkpoint, or a directory with
        one of these.
      prefer_averages: whether to read the moving average of a variable instead of the variable, if
        a TensorFlow checkpoint contains both.

    Raises:
      DeepLabError: the file does not exist, is damaged, is a pointer of Git LFS, or has an unknown
        format.
    """
    file = weights_file(path)
    if not file.exists():
        raise DeepLabError(f"{path}: there is no such file")
    with file.open("rb") as opened:
        if opened.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DeepLabError(
                f"{file} is a pointer of Git LFS to the weights; run `git lfs pull` in the "
                "repository that contains it, or download the file"
            )
    path = find_weights(path)
    suffix = INDEX if index_of(path).exists() else _suffix(path)
    if suffix not in READERS:
        given, legal = suffix or "(no suffix)", ", ".join(READERS)
        raise DeepLabError(f"{path}: unknown format {given}; legal: {legal}")
    module, function = READERS[suffix]
    options = {"prefer_averages": prefer_averages} if suffix in (INDEX, ".ckpt") else {}
    try:
        reader = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        return reader(path, **options)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # For a damaged file, third-party parsers raise exceptions of any type.
        raise DeepLabError(f"{path} is damaged, or not a {path.suffix} file: {error!r}") from error
