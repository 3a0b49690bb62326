"""usage: deeplab-jax export --model=M --format=F --output=PATH [--flag=value …]

Exports a trained network to another runtime: stablehlo (JAX, on CPU, GPU and TPU), onnx (ONNX
Runtime, OpenCV and others), tflite (LiteRT: phones and single-board computers), coreml (Apple
devices; these files have not been run on a device) or web (a directory with a static page that runs
the network in the browser). Batch normalization is folded into convolutions. The file also contains
class names, palette and normalization.

The exported file takes uint8 RGB images, or the bands that the network was trained on. By default,
it returns the class index of every pixel. StableHLO and ONNX files accept any batch size.
Heights and widths must be k · output stride + 1 pixels for a positive integer k, or k · output
stride pixels if the network has align_corners=False or multiple_of_stride=True. TFLite and Core ML
files accept one size and, by default, one image per call. OpenCV reads only ONNX files with a fixed
--size.

--verify compares the file with the network on images, which are padded to --size. Without --size,
the images are padded to the inference size of the model and, if the file accepts any size, also to
a smaller and a larger size. --verify_size sets other sizes.

examples:
  deeplab-jax export --model=runs/camvid --format=stablehlo --output=camvid.stablehlo
  deeplab-jax export --model=runs/camvid --format=onnx --output=camvid.onnx --verify=photos
  deeplab-jax export --model=deeplabv3_mobilenetv2_voc_uint8 --format=tflite --size=513x513 \\
    --output=voc.tflite
  deeplab-jax export --model=runs/camvid --format=coreml --output=camvid.mlpackage
  deeplab-jax export --model=runs/camvid --format=tflite --calibrate=photos --output=camvid8.tflite
  npm install onnxruntime-web && deeplab-jax export --model=runs/camvid --format=web --output=page
"""

import os
import pathlib
from typing import TYPE_CHECKING

from deeplab_jax import inference, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_size
from deeplab_jax.data.volumes import refuse_ignored_volumes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import (
    as_path,
    check_output_directory,
    check_output_file,
    check_replaceable,
    local_output,
)

if TYPE_CHECKING:
    import numpy as np

    from deeplab_jax.export.program import Program, Size

FORMATS = ["stablehlo", "onnx", "tflite", "coreml", "web"]
# Formats that are written as a directory.
DIRECTORIES = ("coreml", "web")
# Formats whose files take one image per call by default.
ONE_IMAGE = ("tflite", "coreml", "web")
SIDES = ("inside", "outside")
ANY = "any"
# Dtype and quantization of networks whose exported files must agree with them up to rounding.
FLOATS = ("float32", "none")
# Maximum number of images for calibration; more images hardly change the ranges. They are evenly
# spaced, because images with similar names are often similar.
MAX_CALIBRATION = 100


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define("format", None, "Format of the exported file.", choices=FORMATS)
    flags.define("output", None, "Path of the exported file, or of a directory for web.")
    flags.define(
        "size",
        ANY,
        "Height x width of the images in pixels, as in 513x513, or the word any. With "
        "--size=any, tflite and coreml files accept only one size: the inference size of the "
        "model, or 513x513 if it has none, rounded up to a legal size.",
    )
    flags.define(
        "batch",
        None,
        "Number of images per call, or the word any. With --batch=any, stablehlo, onnx and "
        "tflite files accept any number of images per call; coreml and web files accept one image "
        "(default: 1 for tflite, coreml and web; any for stablehlo and onnx).",
    )
    flags.define(
        "preprocessing",
        "inside",
        "Place of the input normalization. inside: the file takes pixels and normalizes them; "
        "outside: the file takes normalized float32 images.",
        choices=SIDES,
    )
    flags.define(
        "argmax",
        "inside",
        "Place of the argmax over classes. inside: the file returns class maps; outside: the file "
        "returns logits.",
        choices=SIDES,
    )
    flags.define(
        "portable",
        True,
        "Use only operations that run on all platforms. --noportable uses the fastest operations "
        "of each platform, and requires --format=stablehlo.",
    )
    flags.define(
        "dtype",
        "float32",
        "Data type of weights and computation. Input and output keep their data types. float16 is "
        "not supported by stablehlo.",
        choices=["float32", "float16"],
    )
    _define_images(flags)
    flags.define(
        "runtime",
        None,
        "Only for --format=web: directory of the npm package onnxruntime-web (default: found in "
        "node_modules).",
    )
    flags.define("overwrite", False, "Replace the file if it exists.")


def _define_images(flags: Flags) -> None:
    """Defines the flags that name images for verification and calibration."""
    flags.define(
        "verify",
        None,
        "Images or folders, separated by commas. The exported file is compared with the network on "
        "these images.",
    )
    flags.define(
        "calibrate",
        None,
        "Images or folders, separated by commas. The exported file then computes in 8-bit "
        "integers, whose ranges are calibrated on these images, or on 100 evenly spaced ones if "
        "there are more. Requires --format=tflite.",
    )
    flags.define(
        "verify_size",
        list,
        "Image sizes for --verify, as height x width in pixels, separated by commas, as in "
        "257x257,513x513 (default: --size; without it, the inference size of the model and, if the "
        "file accepts any size, a smaller and a larger size).",
    )
    flags.define("verify_limit", 50, "Maximum number of images for --verify.", least=1)


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Exports a model, and compares the file with the network if --verify is given."""
    flags.require("model", "format", "output")
    if paths:
        raise DeepLabError(f"export takes no paths; did you mean --verify={','.join(paths)}?")
    output = _check_output(flags)
    if flags.verify_size and not flags.verify:
        raise DeepLabError("--verify_size requires --verify, as in --verify=photos")
    if flags.runtime and flags.format != "web":
        raise DeepLabError("--runtime requires --format=web; omit --runtime, or change --format")
    if flags.verify and flags.format == "coreml":
        raise DeepLabError(
            "--verify cannot be combined with --format=coreml, because a Core ML file runs on "
            "Apple devices only; omit --verify, or export with --format=onnx"
        )
    if flags.calibrate and flags.format != "tflite":
        raise DeepLabError(
            "--calibrate requires --format=tflite; omit --calibrate, or change --format"
        )
    size = None if flags.size == ANY else parse_size(flags.size)
    batch = _batch(flags.batch, flags.format)
    sizes = [parse_size(text) for text in flags.verify_size or ()]
    images = _find(flags.verify, flags.verify_limit)
    calibration = _evenly_spaced(_find(flags.calibrate), MAX_CALIBRATION)
    pretrained.check_reference(flags.model)
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.export.program import ExportOptions
    from deeplab_jax.export.runtimes import export, program_for
    from deeplab_jax.export.verification import cases

    if flags.format == "web":
        from deeplab_jax.export.web import check_page

        check_page(output)
    options = ExportOptions(
        size=size,
        batch=batch,
        preprocessing=flags.preprocessing == "inside",
        argmax=flags.argmax == "inside",
        portable=flags.portable,
        dtype=flags.dtype,
    )
    predictor = flags.load_predictor(console)
    if not isinstance(predictor, inference.Predictor):
        raise DeepLabError(
            f"{flags.model} classifies whole images; only segmentation models can be exported"
        )
    samples = _read(calibration, predictor) or None
    program = program_for(predictor, flags.format, options)
    compared = cases(program, sizes)
    with local_output(output) as local:
        export(predictor, local, flags.format, options, samples, flags.runtime)
        files = local.rglob("*") if local.is_dir() else [local]
        megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
        differing = _verify(program, compared, local, images, bool(calibration), console)
    # For a bucket, the file is at --output only now.
    console.print(f"{output}: {megabytes:.1f} MB, {_summary(program)}")
    _check_agreement(output, differing)


def _check_output(flags: Flags) -> pathlib.Path:
    """Checks --output, and returns its path.

    Raises:
      DeepLabError: the path exists and --overwrite is not given, or the path cannot be replaced or
        written.
    """
    output = as_path(flags.output)
    if flags.format not in DIRECTORIES:
        check_output_file(output)
    if output.exists() and not flags.overwrite:
        raise DeepLabError(f"{output} exists; give another --output, or replace it (--overwrite)")
    check_replaceable(output)
    check_output_directory(output.parent)
    return output


def _find(paths: str | None, limit: int | None = None) -> list[pathlib.Path]:
    # No image is written, so none is ignored because it is in the directory of the output.
    given = paths.split(",") if paths else []
    images = [path for path, _ in inference.find_images(given, os.sep)] if given else []
    refuse_ignored_volumes(given, images)
    return images[:limit]


def _evenly_spaced(images: list[pathlib.Path], limit: int) -> list[pathlib.Path]:
    count = min(limit, len(images))
    return [images[index * len(images) // count] for index in range(count)]


def _read(paths: list[pathlib.Path], predictor: "inference.Predictor") -> "list[np.ndarray]":
    return [inference.read_input(predictor, path) for path in paths]


def _batch(text: str | None, format: str) -> int | None:
    if text is None:
        return 1 if format in ONE_IMAGE else None
    if text == ANY:
        return None
    if not text.isdecimal() or not int(text):
        raise DeepLabError(f"--batch={text} is not legal; give a whole number above 0, or 'any'")
    return int(text)


def _summary(program: "Program") -> str:
    from deeplab_jax.export.program import suits

    options, (step, plus) = program.options, program.step
    legal = f"{step}·k + {plus}" if plus else f"{step}·k"
    size = f"any suitable size ({legal})"
    if options.size:
        size = f"{options.size[0]}×{options.size[1]}"
        if not suits(options.size, *program.step):
            size += f" (feature maps align with the image only at sizes {legal})"
    batch = "any batch" if options.batch is None else f"batch {options.batch}"
    bands = program.predictor.bands
    pixels = "uint8 RGB" if bands.are_rgb else str(bands)
    takes = pixels if options.preprocessing else "normalized float32"
    returns = "class maps" if options.argmax else "logits"
    return f"takes {takes}, {size}, {batch}; returns {returns}" + (
        f", computes in {options.dtype}" if options.dtype != "float32" else ""
    )


def _verify(
    program: "Program",
    cases: "list[tuple[Size, int]]",
    file: pathlib.Path,
    images: list[pathlib.Path],
    calibrated: bool,
    console: Console,
) -> list[str]:
    """Compares an exported file with its network on images, and prints the results.

    Args:
      program: exported program, which contains the network.
      cases: pairs of an image size (H, W) and a batch size. For each pair, the file and the network
        predict class maps of all images.
      file: path of the exported file on this machine.
      images: paths of the images; if there are none, nothing is compared.
      calibrated: whether the file computes in 8-bit integers.
      console: prints the results.

    Returns:
      The sizes, as HxW, at which the file and the network predict different classes at a pixel
      although the logits of these classes are not nearly equal. If the file or the network does not
      compute in float32, such differences are legal, and the list is empty.
    """
    if not images:
        return []
    from deeplab_jax.export.runtimes import load_exported
    from deeplab_jax.export.verification import verify

    predictor = program.predictor
    exported, read = load_exported(file), _read(images, predictor)
    architecture = predictor.model.architecture
    exact = not calibrated and program.options.dtype == "float32"
    exact = exact and (architecture.dtype, architecture.quantization) == FLOATS
    differing = []
    for size, batch in cases:
        found = verify(exported, predictor, read, size, batch, console)
        console.print(str(found))
        if exact and not found.agrees:
            differing.append(f"{size[0]}x{size[1]}")
    return differing


def _check_agreement(output: pathlib.Path, differing: list[str]) -> None:
    """Raises an error if the exported file differs from the network.

    Args:
      output: path of the exported file, as given by --output.
      differing: result of `_verify`: sizes, as HxW, at which the file and the network differ.

    Raises:
      DeepLabError: `differing` is not empty.
    """
    if differing:
        raise DeepLabError(
            f"{output} and the network predict different classes for images of "
            f"{', '.join(differing)} (height x width); do not use {output} for these sizes, but "
            "export with another --format, or with a fixed --size"
        )
