"""ONNX: one file for the many runtimes that read it."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from deeplab_jax.deploy.metadata import KEY, describe
from deeplab_jax.deploy.open_sizes import input_specification, open_sizes
from deeplab_jax.deploy.program import Program
from deeplab_jax.deploy.translation import translate
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing

# Resize has `axes` from 18 on. The version of the file's format is the one of that time.
OPSET, FORMAT = 18, 8


def import_onnx() -> ModuleType:
    """Returns the package that writes ONNX files, which only this export needs.

    Raises:
      DeepLabError: it is not installed.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise DeepLabError(
            "ONNX files need the package onnx; pip install 'deeplab_jax[onnx]'"
        ) from error


def write_onnx(program: Program, path: str | Path) -> None:
    """Writes an ONNX file.

    Args:
      program: to be exported.
      path: of the file, which is written whole or not at all.

    Raises:
      DeepLabError: onnx is not installed, the sizes of this network cannot be left open, or it has
        what ONNX has not.
    """
    onnx = import_onnx()
    model = onnx_model(program)
    onnx.checker.check_model(model)
    with replacing(Path(path)) as temporary:
        onnx.save(model, str(temporary))


def onnx_model(program: Program) -> Any:
    """Returns the `ModelProto` of a program."""
    onnx = import_onnx()
    # Needs the package.
    from deeplab_jax.deploy.onnx_graph import OnnxWriter

    with open_sizes(program):
        traced = jax.make_jaxpr(program.function)(input_specification(program))
    writer, helper = OnnxWriter(), onnx.helper
    image = writer.node("Transpose", "image", perm=[0, 3, 1, 2])
    writer.check_sizes(image, traced.in_avals[0].shape, *program.step)
    result = translate(traced, image, writer)
    metadata = describe(program)
    name = metadata.output["name"]
    final = (
        helper.make_node("Identity", [result], [name])
        if program.options.argmax
        else helper.make_node("Transpose", [result], [name], perm=[0, 2, 3, 1])
    )
    graph = helper.make_graph(
        [*writer.nodes, final],
        "deeplab",
        [_value_info(onnx, "image", metadata.input)],
        [_value_info(onnx, name, metadata.output)],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="deeplab_jax",
        producer_version=metadata.version,
    )
    helper.set_model_props(model, {KEY: metadata.to_json()})
    return model


def _value_info(onnx: ModuleType, name: str, told: dict[str, Any]) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(told["dtype"]))
    shape = [
        symbol if length is None else length
        for symbol, length in zip(("N", "H", "W", "C"), told["shape"], strict=False)
    ]
    return onnx.helper.make_tensor_value_info(name, kind, shape)
