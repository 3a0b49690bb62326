"""Writes a trained network in the format of another runtime."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.export.program import ExportOptions, Program, make_program
from deeplab_jax.inference import Predictor

FORMATS = ("stablehlo", "onnx", "tflite")


def export(
    predictor: Predictor,
    path: str | Path,
    format: str,
    options: ExportOptions | None = None,
    calibration: Sequence[np.ndarray] | None = None,
) -> ExportOptions:
    """Writes a network for another runtime, batch normalisations folded, whole or not at all.

    Args:
      predictor: of the trained network; how it applies it (scales, tiles, CRF) stays behind.
      path: of the file.
      format: one of FORMATS.
      options: what the file takes and gives.
      calibration: images, uint8 [H, W, 3], on which a TFLite file in 8-bit integers finds its
        ranges; None: floats.

    Returns:
      The options that hold: TFLite leaves no size open, and fixes what is not given.

    Raises:
      DeepLabError: there is no such format, its packages are not installed, the sizes of this
        network cannot be left open, or it has what the format has not.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if format != "stablehlo" and predictor.model.architecture.quantization != "none":
        raise DeepLabError(
            f"a network in 8-bit integers is not exported to {format} from its variables; "
            "deeplab-jax quantize writes TFLite files in 8-bit integers, and --format=stablehlo "
            "takes it as it is"
        )
    program = program_for(predictor, format, options)
    if format != "stablehlo" and not program.options.portable:
        raise DeepLabError(f"{format} has plain operations alone; portable=False is of stablehlo")
    # Each needs packages of its own.
    if format == "tflite":
        from deeplab_jax.export.tflite import write_tflite

        write_tflite(program, path, calibration)
    elif format == "onnx":
        from deeplab_jax.export.onnx import write_onnx

        write_onnx(program, path)
    else:
        from deeplab_jax.export.stablehlo import write_stablehlo

        write_stablehlo(program, path)
    return program.options


def program_for(predictor: Predictor, format: str, options: ExportOptions | None = None) -> Program:
    """Returns what a file of a format holds: TFLite fixes a size that is not given.

    Args:
      predictor: of the trained network.
      format: one of FORMATS.
      options: what the file takes and gives.
    """
    program = make_program(predictor, options or ExportOptions())
    if format == "tflite" and program.options.size is None:
        options = dataclasses.replace(program.options, size=program.own_size)
        program = make_program(predictor, options)
    return program
