"""Exported files: written for another runtime, and executed by it.

A StableHLO file runs without this package (docs/guides/deploy.md); this module compares formats.
"""

import dataclasses
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.export.metadata import KEY, Metadata, parse_metadata
from deeplab_jax.export.program import ExportOptions, Program, check_suits, make_program
from deeplab_jax.export.stablehlo import read_stablehlo
from deeplab_jax.export.tflite import IDENTIFIER, read_tflite_metadata
from deeplab_jax.inference import Predictor
from deeplab_jax.lazy import import_extra

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


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A file that runs.

    Attributes:
      metadata: of the file.
      run: what the file takes → what it gives, as the metadata tell.
    """

    metadata: Metadata
    run: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the file's result for images.

        Args:
          images: uint8 [N, H, W, C], RGB 0..255; normalised here where the file does not.

        Returns:
          int32 [N, H, W] or float32 [N, H, W, num_classes].

        Raises:
          DeepLabError: the images are no such array, or of a size that the file was not made for.
        """
        self._check(images)
        return self.run(self.metadata.normalized(images))

    def _check(self, images: np.ndarray) -> None:
        given, sizes = self.metadata.input["shape"], self.metadata.sizes
        channels = given[3]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels:
            raise DeepLabError(
                f"images are uint8 [N, H, W, {channels}], RGB 0..255; got {images.dtype} "
                f"{list(images.shape)}"
            )
        size = images.shape[1:3]
        if given[1] is None:
            check_suits(size, sizes["step"], sizes["plus"])
        elif tuple(given[1:3]) != size:
            raise DeepLabError(
                f"images of {size[0]}x{size[1]}, but this file takes {given[1]}x{given[2]} alone; "
                "pad or shrink them, or export it with another --size"
            )
        largest = sizes["largest"]
        if largest and any(side > most for side, most in zip(size, largest, strict=True)):
            raise DeepLabError(
                f"images of {size[0]}x{size[1]} are larger than {largest[0]}x{largest[1]}, which "
                "this file was exported for; export it again"
            )


def load_exported(path: str | Path, threads: int | None = None) -> ExportedNetwork:
    """Returns what `deeplab-jax export` wrote.

    Args:
      path: of a StableHLO, ONNX or TFLite file.
      threads: that ONNX Runtime and LiteRT may use; None: as many as there are cores.

    Raises:
      DeepLabError: it is no such file, or the runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DeepLabError(f"{path}: there is no such file; deeplab-jax export writes one")
    if zipfile.is_zipfile(path):
        exported, text = read_stablehlo(path)
        function = jax.jit(exported.call)
        return ExportedNetwork(
            parse_metadata(text, where=str(path)), lambda images: np.asarray(function(images))
        )
    with path.open("rb") as file:
        is_tflite = file.read(8)[4:] == IDENTIFIER
    load = _load_tflite if is_tflite else _load_onnx
    return load(path, threads or os.cpu_count() or 1)


def _load_tflite(path: Path, threads: int) -> ExportedNetwork:
    interpreters = import_extra("ai_edge_litert.interpreter", "tflite", "this file")
    metadata = read_tflite_metadata(path)
    interpreter = interpreters.Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = [tuple(given["shape"])]

    def run(images: np.ndarray) -> np.ndarray:
        if images.shape != shape[0]:
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
            shape[0] = images.shape
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return ExportedNetwork(metadata, run)


def _load_onnx(path: Path, threads: int) -> ExportedNetwork:
    onnxruntime = import_extra("onnxruntime", "onnx", "this file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Hints about shapes and optimisations; what matters is raised.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise DeepLabError(
            f"{path} is no StableHLO, ONNX or TFLite file that can be executed: {error}"
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise DeepLabError(f"{path} has no metadata of deeplab_jax; deeplab-jax export writes them")
    name = session.get_inputs()[0].name
    return ExportedNetwork(
        parse_metadata(text, where=str(path)), lambda images: session.run(None, {name: images})[0]
    )
