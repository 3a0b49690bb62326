"""PyTorch files (`.pth`, `.pt`, `.bin`): state dicts, read without running what is in them."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.published import PublishedWeights
from deeplab_jax.pretrained.readers.extras import import_extra
from deeplab_jax.pretrained.readers.state_dict import published_state_dict

# Under which training code keeps the state dict among its other records.
PLACES = ("state_dict", "model", "model_state", "model_state_dict", "net", "network")
# What torch says of a class or function that a pickle would call.
CALLED = re.compile(r"GLOBAL\s+(\S+)")


def read_pytorch(path: Path) -> PublishedWeights:
    """Reads a state dict; half-precision weights come as float32.

    Raises:
      DeepLabError: the file would run code, is damaged, holds no state dict, or torch is missing.
    """
    torch = import_extra("torch", "torch", "PyTorch files")
    tensors = _state_dict(_load(torch, path), torch)
    arrays = {name: _array(torch, name, t) for name, t in tensors.items() if torch.is_tensor(t)}
    others = {name: "it is no array" for name in tensors if name not in arrays}
    return published_state_dict(arrays, path, others)


def _load(torch: ModuleType, path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DeepLabError(_why_refused(str(error))) from error
    except MemoryError:
        raise
    except Exception as error:
        # torch raises whatever a damaged file leads it to.
        if "TorchScript" in str(error):
            raise DeepLabError(
                "it is a TorchScript program, which is not run here; save its state_dict()"
            ) from error
        raise DeepLabError("it is damaged, or no file that torch.save wrote") from error


def _why_refused(message: str) -> str:
    called = CALLED.search(message)
    if called is None:
        return "it is damaged, or no file that torch.save wrote"
    return (
        f"it holds more than arrays ({called[1]}), which may be code, and is refused; "
        "ask for a state dict or safetensors"
    )


def _state_dict(content: Any, torch: ModuleType) -> Mapping[str, Any]:
    """Returns the names and tensors, wherever training code has put them.

    Raises:
      DeepLabError: there are none.
    """
    while isinstance(content, Mapping):
        # Beside a state dict there may be single tensors, a best score for example.
        place = next((p for p in PLACES if _holds_tensors(content.get(p), torch)), None)
        if place is None and any(map(torch.is_tensor, content.values())):
            return {str(name): value for name, value in content.items()}
        if place is None:
            found = ", ".join(map(str, list(content)[:8])) or "nothing"
            raise DeepLabError(
                f"it holds {found}, but no state dict; looked under {', '.join(PLACES)}"
            )
        content = content[place]
    raise DeepLabError(f"it holds one {type(content).__name__}, but no state dict")


def _holds_tensors(content: Any, torch: ModuleType) -> bool:
    return isinstance(content, Mapping) and any(
        torch.is_tensor(value) or _holds_tensors(value, torch) for value in content.values()
    )


def _array(torch: ModuleType, name: str, tensor: Any) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise DeepLabError(f"{name} is a sparse or quantised tensor; save it dense and as floats")
    values = tensor.detach()
    return (values.float() if values.is_floating_point() else values).numpy()
