"""A trained network in the format of another runtime."""

import dataclasses
from pathlib import Path

from deeplab_jax.deploy.program import ExportOptions, make_program
from deeplab_jax.errors import unknown_name
from deeplab_jax.inference import Predictor

FORMATS = ("stablehlo", "onnx", "tflite")


def export(
    predictor: Predictor, path: str | Path, format: str, options: ExportOptions | None = None
) -> ExportOptions:
    """Writes a network for another runtime, batch normalisations folded, whole or not at all.

    Args:
      predictor: of the trained network; how it applies it (scales, tiles, CRF) stays behind.
      path: of the file.
      format: one of FORMATS.
      options: what the file takes and gives.

    Returns:
      The options that hold: TFLite leaves no size open, and fixes what is not given.

    Raises:
      DeepLabError: there is no such format, its packages are not installed, the sizes of this
        network cannot be left open, or it has what the format has not.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    program = make_program(predictor, options or ExportOptions())
    if format == "tflite" and program.options.size is None:
        options = dataclasses.replace(program.options, size=program.own_size)
        program = make_program(predictor, options)
    # Each needs packages of its own.
    if format == "tflite":
        from deeplab_jax.deploy.tflite import write_tflite as write
    elif format == "onnx":
        from deeplab_jax.deploy.onnx import write_onnx as write
    else:
        from deeplab_jax.deploy.stablehlo import write_stablehlo as write
    write(program, path)
    return program.options
