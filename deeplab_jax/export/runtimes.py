"""Writes exported files, and loads them into the runtime of their format.

StableHLO files also run without deeplab_jax; see docs/guides/deploy.md.
"""

import dataclasses
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.export.metadata import KEY, NO_METADATA, Metadata, describe, parse_metadata
from deeplab_jax.export.program import (
    ExportOptions,
    Program,
    check_suits,
    input_specification,
    make_program,
    open_sizes,
)
from deeplab_jax.export.tflite import IDENTIFIER, read_tflite_metadata, write_tflite
from deeplab_jax.files import PAGE_NETWORK, as_path, local_output, replacing
from deeplab_jax.inference import Predictor
from deeplab_jax.lazy import import_extra
from deeplab_jax.listing import DAMAGED_ZIP
from deeplab_jax.parallel.chips import cores

FORMATS = ("stablehlo", "onnx", "tflite", "coreml", "web")
# Formats whose files have a fixed image size.
FIXED_FORMATS = ("tflite", "coreml")
# Formats whose writers support `ExportOptions.dtype="float16"`.
HALF_FORMATS = ("onnx", "tflite", "coreml", "web")
# Platforms that can execute a StableHLO file.
PLATFORMS = ("cpu", "cuda", "tpu")
# Names of the files in the zip archive that a StableHLO file is.
NETWORK, METADATA = "network.stablehlo", "metadata.json"


def export(
    predictor: Predictor,
    path: str | Path,
    format: str,
    options: ExportOptions | None = None,
    calibration: Sequence[np.ndarray] | None = None,
    runtime: str | Path | None = None,
) -> ExportOptions:
    """Writes a network to a file for another runtime.

    Batch normalization is folded, and the file is written atomically.

    Args:
      predictor: predictor of the trained network; its options (scales, tiles, CRF) are ignored.
      path: path of the file, or of the directory for `web`, on this machine or in a bucket.
      format: `stablehlo`, `onnx`, `tflite`, `coreml` or `web`.
      options: inputs and outputs of the file (default: `ExportOptions()`).
      calibration: images uint8 [H, W, 3] for quantizing a TFLite file to 8-bit integers; the ranges
        of feature maps are measured on them. None: no quantization.
      runtime: directory of the npm package onnxruntime-web, which is copied into a web page
        (default: found in `node_modules` of the current directory or its parents).

    Returns:
      The options of the written file. For TFLite and Core ML, which have a fixed size, `size` is
      set even if it was None; for a web page, `batch` is 1.

    Raises:
      DeepLabError: the format is unknown, its packages are not installed, the network does not
        support variable sizes, the format does not support an option or an operation of the
        network, or the path of a web page exists and is neither an exported page nor an empty
        directory.
    """
    check_exports(predictor, format)
    program = program_for(predictor, format, options)
    _check_options(program.options, format, calibration is not None)
    place = as_path(path)
    if format == "web":
        from deeplab_jax.export.web import check_page

        # For a bucket, `write_page` receives a new local path.
        check_page(place)
    with local_output(place) as local:
        _write(program, local, format, calibration, runtime)
    return program.options


def _check_options(options: ExportOptions, format: str, calibrates: bool) -> None:
    """Checks that a format supports the options of a file.

    Args:
      options: inputs and outputs of the file.
      format: format of the file.
      calibrates: whether calibration images are given, for quantization.

    Raises:
      DeepLabError: the format does not support an option, or options contradict each other.
    """
    if format != "stablehlo" and not options.portable:
        raise DeepLabError(
            f"portable=False (--noportable) requires the format stablehlo, got {format}; omit "
            "--noportable"
        )
    if options.dtype != "float32" and format not in HALF_FORMATS:
        raise DeepLabError(
            f"{format} files compute in float32; --dtype={options.dtype} is supported only "
            f"by the formats {', '.join(HALF_FORMATS)}"
        )
    if calibrates and format != "tflite":
        raise DeepLabError(
            f"calibration (--calibrate) requires the format tflite, got {format}; omit "
            "calibration, or give --format=tflite"
        )
    if calibrates and options.dtype != "float32":
        raise DeepLabError(
            f"dtype={options.dtype} cannot be combined with calibration, which quantizes a TFLite "
            "file to 8-bit integers; omit dtype (--dtype) or calibration (--calibrate)"
        )


def _write(
    program: Program,
    path: Path,
    format: str,
    calibration: Sequence[np.ndarray] | None,
    runtime: str | Path | None,
) -> None:
    """Writes a program to a path on this machine. See `export` for the other arguments."""
    if format == "tflite":
        write_tflite(program, path, calibration)
    elif format == "stablehlo":
        _write_stablehlo(program, path)
    elif format == "web":
        from deeplab_jax.export.web import write_page

        write_page(program, path, runtime)
    elif format == "coreml":
        from deeplab_jax.export.coreml import write_coreml

        write_coreml(program, path)
    else:
        from deeplab_jax.export.onnx import write_onnx

        write_onnx(program, path)


def check_exports(predictor: Predictor, format: str) -> None:
    """Checks that a format exists, and that it is StableHLO if the network is quantized.

    Raises:
      DeepLabError: the format is unknown, or the network is quantized and the format is not
        StableHLO.
    """
    check_name("format", format, FORMATS)
    if format != "stablehlo" and predictor.model.architecture.quantization != "none":
        raise DeepLabError(
            f"a quantized network cannot be exported to {format}; give --format=stablehlo, or "
            "export the float network with --format=tflite --calibrate, which quantizes it"
        )


def program_for(predictor: Predictor, format: str, options: ExportOptions | None = None) -> Program:
    """Returns the program to export to a format.

    For TFLite and Core ML, which require a fixed image size, an `options.size` of None is replaced
    by the network's default size, `Program.own_size`. For a web page, which processes one image at
    a time, an `options.batch` of None is replaced by 1.

    Args:
      predictor: predictor of the trained network.
      format: `stablehlo`, `onnx`, `tflite`, `coreml` or `web`.
      options: inputs and outputs of the file (default: `ExportOptions()`).
    """
    options = options or ExportOptions()
    if format == "web" and options.batch is None:
        options = dataclasses.replace(options, batch=1)
    program = make_program(predictor, options)
    if format not in FIXED_FORMATS or program.options.size:
        return program
    return make_program(predictor, dataclasses.replace(program.options, size=program.own_size))


def _write_stablehlo(program: Program, path: str | Path) -> None:
    """Writes a StableHLO file: a zip archive of the serialized function and its metadata.

    The file is written atomically.
    """
    options: dict[str, Any] = {"platforms": PLATFORMS}
    if program.options.portable:
        # Portable operations are lowered to the same code for all platforms. Lowering for several
        # platforms would store each convolution once per platform.
        options["platforms"] = PLATFORMS[:1]
        options["disabled_checks"] = [jax_export.DisabledSafetyCheck.platform()]
    exporter = jax_export.export(jax.jit(program.function), **options)
    with open_sizes(program):
        exported = exporter(input_specification(program))
    compression = zipfile.ZIP_DEFLATED
    with replacing(Path(path)) as file, zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(METADATA, describe(program).to_json())
        archive.writestr(NETWORK, bytes(exported.serialize()))


def _read_stablehlo(path: Path) -> tuple[jax_export.Exported, bytes]:
    """Reads a StableHLO file; returns the exported function and the text of its metadata.

    Raises:
      DeepLabError: the file was not written by `export`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            network = jax_export.deserialize(bytearray(archive.read(NETWORK)))
            return network, archive.read(METADATA)
    except (*DAMAGED_ZIP, KeyError, NotImplementedError, ValueError) as error:
        raise DeepLabError(
            f"{path} is not a StableHLO file that deeplab-jax export wrote ({error}); export the "
            "model again"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """An exported file that is loaded in the runtime of its format.

    Attributes:
      metadata: metadata of the file.
      run: function that maps an array as described in `metadata.input` to an array as described in
        `metadata.output`.
    """

    metadata: Metadata
    run: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Applies the network to images.

        If the exported network does not normalize its input, this method normalizes the images.

        Args:
          images: [N, H, W, C]: uint8 RGB 0..255, or other bands that the network takes. If the file
            has a fixed batch size, N must be equal to it.

        Returns:
          Class maps, int32 [N, H, W]; or logits, float32 [N, H, W, num_classes].

        Raises:
          DeepLabError: the images do not have this shape and dtype, or the file does not support
            their number, height or width.
        """
        given, sizes = self.metadata.input["shape"], self.metadata.sizes
        channels, pixels = given[3], self.metadata.pixels
        if images.dtype != pixels or images.ndim != 4 or images.shape[3] != channels:
            meaning = "RGB 0..255" if (channels, pixels.name) == (3, "uint8") else "bands"
            raise DeepLabError(
                f"images must have dtype {pixels} and shape [N, H, W, {channels}] ({meaning}), got "
                f"{images.dtype} {list(images.shape)}"
            )
        if given[0] not in (None, len(images)):
            raise DeepLabError(
                f"the batch has N={len(images)} images, but this file takes only N={given[0]} per "
                "call; split or pad the batch, or export with another --batch"
            )
        size = images.shape[1:3]
        if given[1] is None:
            check_suits(size, sizes["step"], sizes["plus"])
        elif tuple(given[1:3]) != size:
            raise DeepLabError(
                f"images have {size[0]}x{size[1]} pixels, but this file takes only "
                f"{given[1]}x{given[2]} (height x width); pad or downsample them, or export with "
                "another --size"
            )
        largest = sizes["largest"]
        if largest and any(side > most for side, most in zip(size, largest, strict=True)):
            raise DeepLabError(
                f"images have {size[0]}x{size[1]} pixels (height x width), but this file, which an "
                f"earlier release wrote, supports at most {largest[0]}x{largest[1]}; export the "
                "model again to remove this limit"
            )
        return self.run(self.metadata.normalized(images))


def load_exported(path: str | Path, threads: int | None = None) -> ExportedNetwork:
    """Loads a file that `deeplab-jax export` wrote.

    Args:
      path: path of a StableHLO, ONNX or TFLite file, or of an exported web page.
      threads: maximum number of threads of ONNX Runtime and LiteRT (default: number of cores that
        are available to this process).

    Raises:
      DeepLabError: the file is missing, cannot be executed or has no metadata of deeplab_jax, or
        its runtime is not installed.
    """
    path = as_path(path)
    if (path / PAGE_NETWORK).is_file():
        path = path / PAGE_NETWORK
    if path.is_dir():
        raise DeepLabError(
            f"{path} is a directory, but not an exported web page; give such a page, or a "
            "StableHLO, ONNX or TFLite file (Core ML packages run on Apple devices only)"
        )
    if not path.is_file():
        raise DeepLabError(f"{path}: no such file; write one with `deeplab-jax export`")
    threads = threads or cores()
    with path.open("rb") as file:
        is_tflite = file.read(8)[4:] == IDENTIFIER
    # Published TFLite files contain their labels as an appended zip archive.
    if is_tflite:
        return _load_tflite(path, threads)
    if zipfile.is_zipfile(path):
        exported, text = _read_stablehlo(path)
        function, metadata = jax.jit(exported.call), parse_metadata(text, where=str(path))
        return ExportedNetwork(metadata, lambda images: np.asarray(function(images)))
    return _load_onnx(path, threads)


def _load_tflite(path: Path, threads: int) -> ExportedNetwork:
    interpreters = import_extra("ai_edge_litert.interpreter", "tflite", "this file")
    try:
        # This verifies the file, whose metadata cannot be read safely otherwise.
        interpreter = interpreters.Interpreter(str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        raise DeepLabError(
            f"{path} cannot be run as a TFLite file ({error}); {NO_METADATA}"
        ) from error
    metadata = read_tflite_metadata(path)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(images: np.ndarray) -> np.ndarray:
        if images.shape != tuple(interpreter.get_input_details()[0]["shape"]):
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return ExportedNetwork(metadata, run)


def _load_onnx(path: Path, threads: int) -> ExportedNetwork:
    onnxruntime = import_extra("onnxruntime", "onnx", "this file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # ONNX Runtime logs only errors (level 3), not hints about shapes and optimizations.
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        # The message of ONNX Runtime may have several lines.
        reason = " ".join(str(error).split())
        raise DeepLabError(
            f"{path} is not a StableHLO, ONNX or TFLite file that can be executed ({reason}); "
            f"{NO_METADATA}"
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise DeepLabError(
            f"{path} cannot be run, because it has no metadata of deeplab_jax; {NO_METADATA}"
        )
    metadata, name = parse_metadata(text, where=str(path)), session.get_inputs()[0].name
    return ExportedNetwork(metadata, lambda images: session.run(None, {name: images})[0])
