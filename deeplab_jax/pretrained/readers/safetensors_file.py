"""Safetensors files, read without torch."""

from pathlib import Path

# Registers bfloat16 with NumPy.
import ml_dtypes  # noqa: F401
from safetensors import SafetensorError, safe_open

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.published import PublishedWeights
from deeplab_jax.pretrained.readers.state_dict import published_state_dict


def read_safetensors(path: Path) -> PublishedWeights:
    """Reads the arrays; half-precision weights come as float32, the metadata is not looked at.

    Raises:
      DeepLabError: the file is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DeepLabError(f"it is damaged, or no safetensors file: {error}") from error
    return published_state_dict(arrays, path, {})
