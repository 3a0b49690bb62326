"""What PyTorch's files and safetensors share: named arrays, and how they are wrapped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.published import PublishedWeights
from deeplab_jax.pretrained.readers.configuration import class_names, configuration_beside

# Names that wrappers (several GPUs, several scales) put before those of the network within.
WRAPPERS = ("module.", "model.", "net.", "base.", "scale.", "Scale.")
COUNTER = "it counts training batches"
WHOLE_NUMBERS = "it holds whole numbers, not weights"


def published_state_dict(
    arrays: Mapping[str, np.ndarray], path: Path, ignored: Mapping[str, str]
) -> PublishedWeights:
    """Returns the floating point arrays of a network as float32, by the names within its wrappers.

    Args:
      arrays: by name, of any type.
      path: of the file, beside which a configuration may lie.
      ignored: what the reader left out, with the reason.

    Raises:
      DeepLabError: none of them is floating point.
    """
    unwrapped = _unwrapped(arrays)
    floats = {name: array for name, array in unwrapped.items() if _is_float(array)}
    if not floats:
        raise DeepLabError("it holds no floating point arrays")
    configuration = configuration_beside(path)
    left = {name: _reason(name) for name in unwrapped if name not in floats}
    return PublishedWeights(
        {name: np.asarray(array, np.float32) for name, array in floats.items()},
        "pytorch",
        class_names=class_names(configuration),
        ignored={**ignored, **left},
        configuration=configuration,
    )


def _unwrapped(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays without the first parts of names that a wrapper gave all of them."""
    arrays = dict(arrays)
    while wrapper := next((w for w in WRAPPERS if all(n.startswith(w) for n in arrays)), None):
        if not arrays:
            break
        arrays = {name.removeprefix(wrapper): array for name, array in arrays.items()}
    return arrays


def _is_float(array: np.ndarray) -> bool:
    # bfloat16 is none of NumPy's own types.
    return array.dtype.name == "bfloat16" or np.issubdtype(array.dtype, np.floating)


def _reason(name: str) -> str:
    return COUNTER if name.endswith("num_batches_tracked") else WHOLE_NUMBERS
