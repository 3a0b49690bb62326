"""Readers of PyTorch and safetensors files, and of the `config.json` beside them."""

import argparse
import ast
import json
import operator
import pathlib
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra
from deeplab_jax.pretrained.archives import CONFIGURATION
from deeplab_jax.pretrained.weights import PublishedWeights

# Keys that distinguish the configuration of a network (transformers, timm,
# segmentation_models.pytorch) from other files named `config.json`.
MARKS = ("architectures", "architecture", "encoder_name")


def configuration_beside(path: Path) -> Mapping[str, Any]:
    """Returns the content of the `config.json` beside a weights file, or {} if there is none.

    A `config.json` that does not describe a network is ignored.

    Raises:
      DeepLabError: the `config.json` cannot be read.
    """
    file = path.parent / CONFIGURATION
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DeepLabError(f"{file} in the same directory cannot be read: {error}") from error
    known = isinstance(values, dict) and any(mark in values for mark in MARKS)
    return values if known else {}


def class_names(configuration: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the class names of a configuration; None if there are none or only placeholders.

    Placeholders are names such as `LABEL_0`, which transformers writes by default.
    """
    listed = configuration.get("classes")
    if isinstance(listed, list | tuple):
        return tuple(map(str, listed))
    names = configuration.get("id2label")
    if not isinstance(names, dict) or not all(str(number).isdecimal() for number in names):
        return None
    ordered = tuple(str(names[number]) for number in sorted(names, key=int))
    return None if all(name.startswith("LABEL_") for name in ordered) else ordered


# Prefixes of the names if the whole network is part of another module, such as a training loop or a
# multi-scale module.
WRAPPERS = ("model.", "net.", "network.", "base.", "scale.", "Scale.")
# Parts that PyTorch inserts into names for data parallelism, averaged weights, torch.compile,
# sharding and gradient checkpointing.
INNER_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# First parts of the names of losses and normalizations, which training loops store beside the
# network.
BESIDE = ("criterion", "loss", "loss_fn", "losses", "mean", "std")


def published_state_dict(
    arrays: Mapping[str, np.ndarray],
    path: Path,
    ignored: Mapping[str, str],
    training: Mapping[str, Any] | None = None,
) -> PublishedWeights:
    """Returns the weights of a state dict: its floating-point arrays, as float32.

    Parts of names that come from wrappers, such as `module.`, are removed.

    Args:
      arrays: arrays of any type by name.
      path: path of the file, which may have a `config.json` beside it.
      ignored: {name: reason} for each entry that was not read.
      training: configuration in the weights file itself. If it is given and not empty, the
        `config.json` is not read.

    Raises:
      DeepLabError: there is no floating-point array, two names differ only in the removed parts,
        or the `config.json` cannot be read.
    """
    unwrapped, wrappers = _renamed(arrays, _without_inner_wrappers), list[str]()
    while wrapper := _common_wrapper(unwrapped):
        wrappers.append(wrapper)
        unwrapped = _renamed(unwrapped, operator.methodcaller("removeprefix", wrapper))
    floats = {name: array for name, array in unwrapped.items() if _is_float(array)}
    if not floats:
        raise DeepLabError("the file contains no floating-point arrays")
    configuration = training or configuration_beside(path)
    left = {
        name: "it counts training batches"
        if name.endswith("num_batches_tracked")
        else "it contains integers, not weights"
        for name in unwrapped
        if name not in floats
    }
    return PublishedWeights(
        {name: np.asarray(array, np.float32) for name, array in floats.items()},
        "pytorch",
        class_names=class_names(configuration),
        ignored={**ignored, **left},
        configuration=configuration,
        wrappers=tuple(wrappers),
    )


def _without_inner_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INNER_WRAPPERS)


def _common_wrapper(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns the prefix in WRAPPERS, such as `model.`, with which all names start, or None.

    Only names of floating-point arrays with several axes count, without those of losses and
    normalizations (BESIDE). Class weights, for example, have one axis.
    """
    kernels = [name for name, array in arrays.items() if _is_float(array) and array.ndim > 1]
    names = [name for name in kernels if name.partition(".")[0] not in BESIDE]
    return next((w for w in WRAPPERS if names and all(n.startswith(w) for n in names)), None)


def _renamed(
    arrays: Mapping[str, np.ndarray], rename: Callable[[str], str]
) -> dict[str, np.ndarray]:
    names: dict[str, str] = {}
    for name in arrays:
        other = names.setdefault(rename(name), name)
        if other != name:
            raise DeepLabError(
                f"{other} and {name} become the same name when parts such as `module.` are removed "
                "from them; save the state dict of a single network"
            )
    return {new: arrays[old] for new, old in names.items()}


def _is_float(array: np.ndarray) -> bool:
    # bfloat16 is an extension type of NumPy.
    return array.dtype.name == "bfloat16" or np.issubdtype(array.dtype, np.floating)


# Keys under which training code stores the state dict.
PLACES = ("state_dict", "model", "model_state", "model_state_dict", "net", "network")
# Name of the class or function that the file would call, in PyTorch's error message.
CALLED = re.compile(r"GLOBAL\s+(\S+)")
# PyTorch's error message for instructions of pickle protocols above 2: BINBYTES and SHORT_BINBYTES,
# with which protocol 3 stores NumPy scalars, and FRAME, with which protocols 4 and 5 begin.
NEW_PROTOCOL = re.compile(r"Unsupported operand (66|67|149)\b")


def read_pytorch(path: Path) -> PublishedWeights:
    """Reads the weights in a PyTorch state dict, as float32.

    Raises:
      DeepLabError: torch is not installed; the file is damaged or a TorchScript program, contains
        code that loading would run, no state dict, or sparse or quantized tensors; or
        `published_state_dict` raises an error.
    """
    torch = import_extra("torch", "torch", "a PyTorch file")
    content = _load(torch, path)
    tensors = _state_dict(content, torch)
    arrays = {name: _array(torch, name, t) for name, t in tensors.items() if torch.is_tensor(t)}
    others = {name: "it is not an array" for name in tensors if name not in arrays}
    return published_state_dict(arrays, path, others, _training_configuration(content))


def _load(torch: ModuleType, path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            # The warning concerns sparse arrays, which are refused afterwards.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # For a damaged file, torch raises exceptions of any type.
        problem = "the file is damaged, or not written by torch.save"
        called = CALLED.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if called:
            problem = (
                f"the file is refused because it may run code: it contains {called[1]}; save "
                "only the state dict where the file was written, or ask the author for it or for a "
                "safetensors file"
            )
        elif "TorchScript" in str(error):
            problem = (
                "the file is a TorchScript program, which is not supported; save its state_dict()"
            )
        elif NEW_PROTOCOL.search(str(error)):
            problem = (
                "the file was written with pickle protocol 3, 4 or 5, which PyTorch can read only "
                "if code may run; if you trust the file, load it with the program that wrote it, "
                "and save its state dict with torch.save and the default pickle_protocol"
            )
        elif "legacy .tar format" in str(error):
            problem = (
                "the file is a tar archive, the format of early releases of PyTorch, which is not "
                "supported; if you trust the file, load it in PyTorch with weights_only=False, and "
                "save its state dict again"
            )
        raise DeepLabError(problem) from error


class _Ignored:
    """Stand-in for objects beside the state dict, and for the functions that create them."""

    def __init__(self, *arguments: Any) -> None:
        """Ignores the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the state."""


# Names that files refer to, but that are never called, because `_Ignored` replaces them: NumPy
# arrays, and the logs that mmsegmentation 1.x stores with their methods.
IGNORED = (
    *("numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr"),
)


def _harmless() -> list[Any]:
    """Returns the types and functions that torch must allow besides its own, or their stand-ins.

    Training code stores NumPy scalars, such as the best score, and command-line arguments with
    paths in checkpoints. It is safe to allow them, because they contain only values. NumPy 1 and
    NumPy 2 store the constructor of scalars under different names, and so do the releases of Python
    for paths; all names are allowed.
    """
    scalar = np.float64(0).__reduce__()[0]
    types = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    paths = (f"pathlib{of}.{kind}Path" for of in ("", "._local") for kind in ("Posix", "Windows"))
    return [
        *(np.dtype, argparse.Namespace),
        *((scalar, name) for name in names),
        *(type(np.dtype(t)) for t in types),
        *((pathlib.PurePosixPath, name) for name in paths),
        *((_Ignored, name) for name in IGNORED),
    ]


def _training_configuration(content: Any) -> Mapping[str, Any]:
    """Returns the training configuration that mmsegmentation stores in checkpoints, under `meta`.

    The result also contains the class names as `classes`, or None if the checkpoint contains none.
    For checkpoints with neither a configuration nor class names, the result is {}.

    Args:
      content: content of the checkpoint file.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return {}
    dataset = meta.get("dataset_meta")
    described = dataset.get("classes") if isinstance(dataset, Mapping) else None
    classes = meta.get("CLASSES") or described
    text = meta.get("cfg", meta.get("config"))
    settings = _assignments(text) if isinstance(text, str) else {}
    return {**settings, "classes": classes} if settings or classes else {}


def _assignments(text: str) -> dict[str, Any]:
    """Returns the values that a Python configuration assigns to names, without running it.

    Only literals and calls of `dict` are evaluated; other values become None.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return {}
    assigned = (each for each in statements if isinstance(each, ast.Assign))
    return {
        each.targets[0].id: _value(each.value)
        for each in assigned
        if isinstance(each.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {each.arg: _value(each.value) for each in node.keywords if each.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _state_dict(content: Any, torch: ModuleType) -> Mapping[str, Any]:
    """Returns the state dict in the content of a PyTorch file.

    The state dict may be stored under one of the keys in PLACES, such as `model`. Its entries that
    are not tensors are returned, too.

    Raises:
      DeepLabError: there is no state dict.
    """
    while isinstance(content, Mapping):
        # Other tensors, such as a best score, may be stored beside the state dict.
        place = next((p for p in PLACES if _holds_tensors(content.get(p), torch)), None)
        if place is None and any(map(torch.is_tensor, content.values())):
            return {str(name): value for name, value in content.items()}
        if place is None:
            found = ", ".join(map(str, list(content)[:8])) or "nothing"
            raise DeepLabError(
                f"the file contains {found}, but no state dict; the state dict must be the whole "
                f"content of the file, or be stored under one of the keys {', '.join(PLACES)}"
            )
        content = content[place]
    raise DeepLabError(f"the file contains a {type(content).__name__}, but no state dict")


def _holds_tensors(content: Any, torch: ModuleType) -> bool:
    return isinstance(content, Mapping) and any(
        torch.is_tensor(value) or _holds_tensors(value, torch) for value in content.values()
    )


def _array(torch: ModuleType, name: str, tensor: Any) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise DeepLabError(f"{name} is sparse or quantized; save it as a dense float tensor")
    values = tensor.detach()
    return (values.float() if values.is_floating_point() else values).numpy()


def read_safetensors(path: Path) -> PublishedWeights:
    """Reads the weights in a safetensors file, as float32; the metadata of the file is ignored.

    Raises:
      DeepLabError: the file is damaged, or `published_state_dict` raises an error.
    """
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DeepLabError(f"the file is damaged, or not a safetensors file: {error}") from error
    return published_state_dict(arrays, path, {})
