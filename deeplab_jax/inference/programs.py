"""Stores traced programs on disk, so that a new process does not need to trace the network.

Tracing a network takes longer than reading its compiled program from JAX's compile cache. A traced
program is StableHLO, serialized by `jax.export`. It contains no weights and no Python objects.
"""

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
from jax.stages import Wrapped

import deeplab_jax
from deeplab_jax.files import PROGRAM_SUFFIX, program_directory, replacing

Images = jax.Array | np.ndarray
# Function from variables and images [N, H, W, C] to arrays [N, …].
Forward = Callable[[Any, Images], Any]
# Maximum number of programs on disk, about 100 kB each. The oldest are removed.
MAX_PROGRAMS = 64


def stored(forward: Wrapped, model: Any, purpose: str) -> Forward:
    """Returns a function like `forward` that stores its traced programs on disk and reuses them.

    The programs are stored in the directory $DEEPLAB_PROGRAM_CACHE. `forward` is returned unchanged
    if this environment variable is not set, if the class of `model` is not part of this package, or
    if `repr(model)` contains memory addresses, which differ between processes. The arguments of the
    returned function must be on one device.

    Args:
      forward: compiled function that maps (variables of `model`, images) to arrays.
      model: Flax module that `forward` applies. `repr(model)` is part of the key that identifies a
        stored program.
      purpose: text that describes what `forward` computes besides the model, such as the function
        that it applies to the output of the model. This text is also part of the key.
    """
    directory = program_directory()
    # A model identifies a program only if it is a module of this package and the text of its fields
    # is the same in all processes.
    known = type(model).__module__.startswith("deeplab_jax.") and " at 0x" not in repr(model)
    if directory is None or not known:
        return forward
    programs: dict[Any, Forward] = {}

    def read_or_trace(variables: Any, image: Images) -> Any:
        if (image.shape, image.dtype) not in programs:
            arguments = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (variables, image)
            )
            facts = "\n".join([repr(model), purpose, str(arguments), *surroundings()])
            name = hashlib.sha256(facts.encode()).hexdigest()
            exported = _exported(forward, arguments, directory / f"{name}{PROGRAM_SUFFIX}")
            programs[image.shape, image.dtype] = jax.jit(exported.call)
        return programs[image.shape, image.dtype](variables, image)

    return read_or_trace


def _exported(forward: Wrapped, arguments: Any, path: pathlib.Path) -> jax.export.Exported:
    """Reads a traced program from the file `path`, or traces the program and writes the file.

    The program is traced if the file is missing or damaged. If the directory is not writable, the
    program is not stored.
    """
    try:
        return jax.export.deserialize(bytearray(path.read_bytes()))
    except FileNotFoundError:
        pass
    # On damaged files, the parser raises exceptions of many types.
    except Exception:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    exported = jax.export.export(forward)(*arguments)
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(exported.serialize())
    remove_oldest(path.parent, PROGRAM_SUFFIX, MAX_PROGRAMS)
    return exported


def remove_oldest(directory: pathlib.Path, suffix: str, most: int) -> None:
    """Removes all files with a suffix from a directory, except the newest `most` files."""
    ages = {}
    for path in directory.glob(f"*{suffix}"):
        # Another process may have removed the file.
        with contextlib.suppress(OSError):
            ages[path] = path.stat().st_mtime_ns
    for path in sorted(ages, key=ages.__getitem__)[:-most]:
        # The directory may not be writable.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@functools.cache
def surroundings() -> tuple[str, ...]:
    """Returns texts that identify the environment of a traced program.

    The name of a stored file is a hash of these and other texts, so that a file is not read in
    another environment. The texts are the versions of libraries, the size and modification time of
    each source file of this package, the backend, the number of devices, and options of JAX.
    """
    package = pathlib.Path(deeplab_jax.__file__).parent
    states = {path.relative_to(package): path.stat() for path in sorted(package.rglob("*.py"))}
    sources = [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states.items()]
    versions = [library.__version__ for library in (flax, jax, jaxlib)]
    return (
        *versions,
        *sources,
        jax.default_backend(),
        str(jax.device_count()),
        # The type stubs of JAX do not declare its options.
        str(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
        str(jax.config.jax_default_matmul_precision),  # type: ignore[attr-defined]
    )
