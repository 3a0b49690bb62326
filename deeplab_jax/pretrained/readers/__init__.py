"""One reader a file format, each yielding named NumPy arrays."""

import importlib
from collections.abc import Callable
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.readers.state_dict import weights_file
from deeplab_jax.pretrained.readers.tensorflow_checkpoint import INDEX, is_checkpoint
from deeplab_jax.pretrained.weights import PublishedWeights

# Suffix → module and function, imported when needed.
READERS = {
    ".tflite": ("tflite", "read_tflite"),
    ".mlmodel": ("core_ml", "read_core_ml"),
    ".pth": ("state_dict", "read_pytorch"),
    ".pt": ("state_dict", "read_pytorch"),
    ".bin": ("state_dict", "read_pytorch"),
    ".safetensors": ("state_dict", "read_safetensors"),
    ".pb": ("frozen_graph", "read_frozen_graph"),
    ".index": ("tensorflow_checkpoint", "read_checkpoint"),
    ".ckpt": ("tensorflow_checkpoint", "read_checkpoint"),
}


def read_weights(path: Path, prefer_averages: bool = True) -> PublishedWeights:
    """Reads a file of published weights, by its suffix.

    Args:
      path: of the file, of the directory that holds it and its configuration, or what the names of
        a TensorFlow checkpoint's files begin with.
      prefer_averages: of a TensorFlow checkpoint: a variable that was averaged over the training
        gets the average.

    Raises:
      DeepLabError: no such file, a format not known here, or a damaged file; names the file.
    """
    path = weights_file(path)
    if not path.exists():
        raise DeepLabError(f"{path}: there is no such file")
    try:
        if is_checkpoint(path):
            return _reader(path)(path, prefer_averages)
        return _reader(path)(path)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Parsers of other projects raise whatever a damaged file leads them to.
        raise DeepLabError(f"{path} is damaged or no {path.suffix} file: {error!r}") from error


def _reader(path: Path) -> Callable[..., PublishedWeights]:
    suffix = INDEX if is_checkpoint(path) else path.suffix
    if suffix not in READERS:
        legal = ", ".join(READERS)
        raise DeepLabError(f"{path.suffix or 'a file without suffix'} is not known; legal: {legal}")
    module, function = READERS[suffix]
    return getattr(importlib.import_module(f"{__package__}.{module}"), function)
