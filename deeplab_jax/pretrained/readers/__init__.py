"""One reader a file format, each yielding named NumPy arrays."""

import importlib
from collections.abc import Callable
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.published import PublishedWeights

# Suffix → module and function, imported when needed.
READERS = {
    ".tflite": ("tflite", "read_tflite"),
    ".mlmodel": ("core_ml", "read_core_ml"),
}


def read_weights(path: Path) -> PublishedWeights:
    """Reads a file of published weights, by its suffix.

    Raises:
      DeepLabError: no such file, a format not known here, or a damaged file; names the file.
    """
    if not path.exists():
        raise DeepLabError(f"{path}: there is no such file")
    try:
        return _reader(path)(path)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Parsers of other projects raise whatever a damaged file leads them to.
        raise DeepLabError(f"{path} is damaged or no {path.suffix} file: {error!r}") from error


def _reader(path: Path) -> Callable[[Path], PublishedWeights]:
    if path.suffix not in READERS:
        legal = ", ".join(READERS)
        raise DeepLabError(f"{path.suffix or 'a file without suffix'} is not known; legal: {legal}")
    module, function = READERS[path.suffix]
    return getattr(importlib.import_module(f"{__package__}.{module}"), function)
