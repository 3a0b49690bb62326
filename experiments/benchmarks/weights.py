"""Conversion of the weights of PyTorch baselines to deeplab_jax."""

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from deeplab_jax.models import DeepLab
from deeplab_jax.pretrained import convert
from deeplab_jax.training.state import Variables


def converted(torch: ModuleType, network: Any, **overrides: object) -> tuple[DeepLab, Variables]:
    """Returns a deeplab_jax network and its variables, converted from a PyTorch network.

    Args:
      torch: the module `torch`.
      network: PyTorch network that `convert` supports.
      **overrides: keywords of `create_model` that replace those detected from the weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(network.state_dict(), file)
        conversion = convert(file, overrides=overrides)
    return conversion.description.create_model(), conversion.variables
