"""State dicts in PyTorch's legacy layout, written without torch, some of them hostile."""

import hashlib
import io
import pickle
import zipfile

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def legacy_file(arrays, *, tensors=None, keys=None, counts=None):
    """Returns the content of a file.

    Args:
      arrays: values of the storages by name.
      tensors: the pickle of the state dict, if it is not that of the arrays.
      keys: the list of keys, if it is not that of the arrays.
      counts: the numbers of elements before the storages, if they are not those of the arrays.
    """
    machine = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    content = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, machine))
    content += state_dict(arrays) if tensors is None else tensors
    content += pickle.dumps(sorted(arrays) if keys is None else keys, 2)
    for name in sorted(arrays):
        count = (counts or {}).get(name, arrays[name].size)
        content += count.to_bytes(8, "little") + arrays[name].tobytes()
    return content


def state_dict(arrays):
    """Returns the pickle of a state dict with one tensor for each array."""
    entries = b"".join(text(name) + tensor(name, array) for name, array in arrays.items())
    ordered = b"ccollections\nOrderedDict\n)R"
    return b"\x80\x02" + ordered + b"(" + entries + b"u."


def tensor(key, array, size=None, stride=None, offset=0, view=b"N"):
    """Returns opcodes that create a tensor."""
    size = array.shape if size is None else size
    stride = [step // array.itemsize for step in array.strides] if stride is None else stride
    kind = STORAGES[array.dtype.name]
    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
        + integer(array.size) + view + b"tQ"
    )  # fmt: skip
    hooks = b"ccollections\nOrderedDict\n)R"
    parts = storage + integer(offset) + integers(size) + integers(stride) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR"


def text(value):
    """Returns the opcode of a string."""
    encoded = value.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def integer(value):
    """Returns the opcode of a number."""
    return b"J" + value.to_bytes(4, "little", signed=True)


def integers(values):
    """Returns the opcodes of a tuple of numbers."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def wheel(member, content):
    """Returns the content of a wheel with one file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(member, content)
    return packed.getvalue()


def checksum(content):
    """Returns the checksum that a catalog entry pins."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def arrays():
    """Returns a state dict with every kind of storage, and a scalar."""
    random = np.random.default_rng(0)
    return {
        "conv.weight": random.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "norm.weight": random.normal(size=4).astype(np.float16),
        "norm.num_batches_tracked": np.array(7),
    }
