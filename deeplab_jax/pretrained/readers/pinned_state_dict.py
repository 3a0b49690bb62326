"""Reader of PyTorch files in the legacy format, without torch.

It only reads files whose SHA-256 is in the catalog of published weights. Other PyTorch files are
read by `state_dict.read_pytorch`.

A file contains, in this order:

* five pickles: magic number, protocol version, facts about the machine that wrote the file, state
  dict, and list of the keys of all storages (arrays of values that tensors refer to),
* for each key in the list: the number of elements of the storage (8 bytes), and the elements.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.download import verify_content

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
PINNED = re.compile(r"sha256:[0-9a-f]{64}")
# Classes of storages in `torch`, and the dtypes of their elements.
DTYPES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8"}


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Unpickler(pickle.Unpickler):
    """Unpickler that creates only plain values, `OrderedDict`, tensors and storages."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns a harmless replacement for a class or function to which the pickle refers.

        The unpickler calls this method for each such reference.

        Raises:
          DeepLabError: the class or function is not one of those that state dicts require.
        """
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                # A new function each time, because a pickle can set attributes of what it gets.
                return lambda *arguments: arguments
            case "torch", _ if name in DTYPES:
                return DTYPES[name]
        raise DeepLabError(
            f"the file is refused because it may run code: it contains {module}.{name}"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage that a persistent id in the pickle describes.

        The unpickler calls this method for each persistent id.

        Args:
          pid: ("storage", dtype, key, device, number of elements, None).

        Raises:
          DeepLabError: `pid` does not have this form, or it contradicts an earlier persistent id
            with the same key.
        """
        match pid:
            case ("storage", str(dtype), str(key), str(), int(count), None) if (
                dtype in DTYPES.values() and count >= 0
            ):
                storage = _Storage(key, dtype, count)
                if self.storages.setdefault(key, storage) == storage:
                    return storage
        raise DeepLabError(
            f"the file is refused because its persistent id {pid!r} does not describe the storage "
            "of a tensor, or contradicts an earlier persistent id"
        )


def read_pinned(content: bytes, checksums: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads a state dict in PyTorch's legacy format.

    Args:
      content: content of the file.
      checksums: checksums in the catalog, each `sha256:` followed by 64 hexadecimal digits. The
        content must match one of them.

    Returns:
      Arrays by name.

    Raises:
      DeepLabError: a checksum is not a complete SHA-256, no checksum matches, or the file is
        damaged or contains other objects than a state dict. In the first two cases, nothing is
        unpickled.
    """
    if not checksums or not all(map(PINNED.fullmatch, checksums)):
        raise DeepLabError(
            "the file is refused because its checksum in the catalog of pretrained weights is "
            "missing, or is not a complete SHA-256"
        )
    verify_content(io.BytesIO(content), checksums)
    try:
        return _read(content)
    except (DeepLabError, MemoryError):
        raise
    except Exception as error:
        # For a damaged file, the unpickler raises exceptions of any type.
        raise DeepLabError(
            f"the file is damaged, or not a legacy PyTorch file: {error!r}"
        ) from error


def _read(content: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(content)
    magic, protocol, machine = (_Unpickler(stream).load() for _ in range(3))
    if (magic, protocol, machine["little_endian"]) != (MAGIC, PROTOCOL, True):
        raise DeepLabError(
            "the file is not a legacy PyTorch file, or was written on a big-endian machine"
        )
    unpickler = _Unpickler(stream)
    tensors, keys = unpickler.load(), _Unpickler(stream).load()
    values, position = {}, stream.tell()
    for storage in (unpickler.storages[key] for key in keys):
        if int.from_bytes(content[position : position + 8], "little") != storage.size:
            raise DeepLabError(
                f"the file is damaged: storage {storage.key} does not have {storage.size} elements"
            )
        values[storage.key] = np.frombuffer(content, storage.dtype, storage.size, position + 8)
        position += 8 + values[storage.key].nbytes
    return {str(name): _array(tensor, values) for name, tensor in tensors.items()}


def _array(tensor: Any, storages: dict[str, np.ndarray]) -> np.ndarray:
    (key, *_), offset, size, stride, *_ = tensor
    values = storages[key]
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or max(last + 1, math.prod(size)) > values.size:
        raise DeepLabError(
            f"the file is damaged: a tensor of size {list(size)} reaches beyond its storage {key}"
        )
    steps = [step * values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(values[offset:], size, steps).copy()
