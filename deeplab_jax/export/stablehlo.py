"""StableHLO export: one file for CPUs, GPUs and TPUs that requires only JAX."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import describe
from deeplab_jax.export.program import Program, input_specification, open_sizes
from deeplab_jax.files import replacing

PLATFORMS = ("cpu", "cuda", "tpu")
# Members of the zip file.
NETWORK, METADATA = "network.stablehlo", "metadata.json"


def write_stablehlo(program: Program, path: str | Path) -> None:
    """Writes a zip file of the serialized function and its metadata.

    Args:
      program: program to export.
      path: path of the file, which is written atomically.

    Raises:
      DeepLabError: the sizes of this network cannot be left open.
    """
    with open_sizes(program):
        exported = _exporter(program)(input_specification(program))
    compression = zipfile.ZIP_DEFLATED
    with replacing(Path(path)) as file, zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(METADATA, describe(program).to_json())
        archive.writestr(NETWORK, bytes(exported.serialize()))


def _exporter(program: Program) -> Callable[..., export.Exported]:
    function = jax.jit(program.function)
    if not program.options.portable:
        return export.export(function, platforms=PLATFORMS)
    # Plain operations are the same on every platform. Lowering for several platforms would store
    # each convolution once per platform.
    checks = [export.DisabledSafetyCheck.platform()]
    return export.export(function, platforms=PLATFORMS[:1], disabled_checks=checks)


def read_stablehlo(path: str | Path) -> tuple[Any, str]:
    """Returns the exported function and the text of its metadata.

    Raises:
      DeepLabError: the file was not written by `write_stablehlo`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return export.deserialize(bytearray(archive.read(NETWORK))), archive.read(METADATA)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DeepLabError(
            f"{path} is no exported StableHLO ({error}); deeplab-jax export writes one"
        ) from error
