"""The configuration that is published beside a network's arrays, and the directory of both."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.readers.checkpoint_files import checkpoint_file

CONFIGURATION = "config.json"
# Of a directory's weights, in the order in which they are looked for.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What tells a network's configuration from other files of that name (transformers, timm).
MARKS = ("architectures", "architecture")


def weights_file(source: Path) -> Path:
    """Returns the file that holds the arrays: the source itself, or one in the directory it is.

    Raises:
      DeepLabError: the directory holds none.
    """
    checkpoint = checkpoint_file(source)
    if checkpoint is not None:
        return checkpoint
    if not source.is_dir():
        return source
    found = next((source / name for name in WEIGHTS if (source / name).is_file()), None)
    if found is None:
        raise DeepLabError(
            f"the directory {source} holds neither {' nor '.join(WEIGHTS)} nor a checkpoint"
        )
    return found


def configuration_beside(path: Path) -> Mapping[str, Any]:
    """Returns what `config.json` beside a file tells of the network; nothing where there is none.

    Raises:
      DeepLabError: it cannot be read.
    """
    file = path.parent / CONFIGURATION
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DeepLabError(f"{file} beside it cannot be read: {error}") from error
    known = isinstance(values, dict) and any(mark in values for mark in MARKS)
    return values if known else {}


def class_names(configuration: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the names of the classes in order; None where a configuration has only numbers."""
    names = configuration.get("id2label")
    if not isinstance(names, dict) or not all(str(number).isdecimal() for number in names):
        return None
    ordered = tuple(str(names[number]) for number in sorted(names, key=int))
    return None if all(name.startswith("LABEL_") for name in ordered) else ordered
