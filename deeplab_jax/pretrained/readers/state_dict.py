"""Readers of named arrays: PyTorch and safetensors files, with their configuration."""

import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra
from deeplab_jax.pretrained.readers.tensorflow_checkpoint import checkpoint_file
from deeplab_jax.pretrained.weights import PublishedWeights

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
    """Returns the network's `config.json` beside a file; an empty mapping where there is none.

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


# Names that wrappers (training loops, several scales) put before those of the network within.
WRAPPERS = ("model.", "net.", "network.", "base.", "scale.", "Scale.")
# Parts that wrappers of any module put into names: several GPUs, averaged weights, torch.compile,
# sharding, recomputation of activations.
INNER_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# First parts of names that training loops keep beside the network.
BESIDE = ("criterion", "loss", "loss_fn", "losses")
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


def _unwrapped(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays by the names that they have without wrappers.

    Raises:
      DeepLabError: two names differ only by wrappers.
    """
    arrays = _renamed(arrays, _without_inner_wrappers)
    while wrapper := _common_wrapper(arrays):
        arrays = _renamed(arrays, lambda name, wrapper=wrapper: name.removeprefix(wrapper))
    return arrays


def _without_inner_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INNER_WRAPPERS)


def _common_wrapper(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns what all names of the network's weights begin with, if a wrapper put it there."""
    names = [
        name
        for name, array in arrays.items()
        if _is_float(array) and name.partition(".")[0] not in BESIDE
    ]
    return next((w for w in WRAPPERS if names and all(n.startswith(w) for n in names)), None)


def _renamed(
    arrays: Mapping[str, np.ndarray], rename: Callable[[str], str]
) -> dict[str, np.ndarray]:
    names: dict[str, str] = {}
    for name in arrays:
        other = names.setdefault(rename(name), name)
        if other != name:
            raise DeepLabError(
                f"{other} and {name} are one name without the parts that wrappers add; "
                "save the state dict of one network"
            )
    return {new: arrays[old] for new, old in names.items()}


def _is_float(array: np.ndarray) -> bool:
    # bfloat16 is none of NumPy's own types.
    return array.dtype.name == "bfloat16" or np.issubdtype(array.dtype, np.floating)


def _reason(name: str) -> str:
    return COUNTER if name.endswith("num_batches_tracked") else WHOLE_NUMBERS


# Under which training code keeps the state dict among its other records.
PLACES = ("state_dict", "model", "model_state", "model_state_dict", "net", "network")
# What torch says of a class or function that a pickle would call.
CALLED = re.compile(r"GLOBAL\s+(\S+)")


def read_pytorch(path: Path) -> PublishedWeights:
    """Reads a state dict; half-precision weights come as float32.

    Raises:
      DeepLabError: the file would run code, is damaged, holds no state dict, or torch is missing.
    """
    torch = import_extra("torch", "torch", "a PyTorch file")
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


# Registers bfloat16 with NumPy.


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
