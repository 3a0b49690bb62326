"""Core ML export: translates a traced program to MIL, Core ML's Model Intermediate Language.

A Core ML package can be written on other machines, but only Apple devices can execute it.
"""

import contextlib
import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import KEY, Metadata, describe
from deeplab_jax.export.program import Program
from deeplab_jax.export.translation import (
    Corner,
    Geometry,
    Pair,
    Value,
    channels_first,
    flat_padding,
    translate,
)
from deeplab_jax.files import check_replaceable, replacing_directory
from deeplab_jax.lazy import import_extra, quiet_logger
from deeplab_jax.ops import Padding

SUFFIX = ".mlpackage"
BINARY = {"sub": "sub", "div": "real_div", "max": "maximum", "min": "minimum"}
# Apple's key for the class names and colors that Xcode shows in its preview.
PREVIEW = "com.apple.coreml.model.preview"


class MilWriter:
    """`Writer` that `translate` uses to write a program as MIL operations.

    Methods take and return MIL variables. Feature maps are [N, C, H, W].
    """

    def __init__(self, builder: Any) -> None:
        self._mil = builder

    def convolution(
        self, inputs: Value, kernel: np.ndarray, bias: np.ndarray | None, geometry: Geometry
    ) -> Value:
        stride, padding, rate, groups = geometry
        given = {} if bias is None else {"bias": np.ascontiguousarray(bias)}
        return self._mil.conv(
            x=inputs,
            weight=np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
            strides=stride,
            pad_type="custom",
            pad=flat_padding(padding),
            dilations=rate,
            groups=groups,
            **given,
        )

    def binary(self, name: str, left: Value, right: Value) -> Value:
        if isinstance(right, np.ndarray):
            if name == "max" and not right.any():
                return self._mil.relu(x=left)
            if name == "min" and right.size == 1 and right == 6 and left.op.op_type == "relu":
                return self._mil.relu6(x=left.op.x)
        operation = getattr(self._mil, BINARY.get(name, name))
        return operation(x=channels_first(left), y=channels_first(right))

    def resize(self, inputs: Value, like: Sequence[Any], align_corners: bool) -> Value:
        return self._mil.resize_bilinear(
            x=inputs,
            target_size_height=int(like[1]),
            target_size_width=int(like[2]),
            sampling_mode="STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS",
        )

    def mean(self, inputs: Value) -> Value:
        return self._mil.reduce_mean(x=inputs, axes=[2, 3], keep_dims=True)

    def mean_over_windows(self, inputs: Value, window: Pair, stride: Pair) -> Value:
        raise NotImplementedError(
            "mean_over_windows is only for variable image sizes, which Core ML files do not "
            "support; call `pool` instead"
        )

    def pool(self, kind: str, inputs: Value, window: Pair, stride: Pair, padding: Padding) -> Value:
        options: dict[str, Any] = {"kernel_sizes": window, "strides": stride}
        options |= {"pad_type": "custom", "pad": flat_padding(padding)}
        if kind == "max":
            return self._mil.max_pool(x=inputs, **options)
        if kind == "mean":
            return self._mil.avg_pool(x=inputs, exclude_padding_from_average=True, **options)
        means = self._mil.avg_pool(x=inputs, exclude_padding_from_average=False, **options)
        return self._mil.mul(x=means, y=np.float32(np.prod(window)))

    def sigmoid(self, inputs: Value) -> Value:
        return self._mil.sigmoid(x=inputs)

    def gelu(self, inputs: Value) -> Value:
        return self._mil.gelu(x=inputs, mode="EXACT")

    def standardize_channels(self, inputs: Value, epsilon: float) -> Value:
        mil = self._mil
        centered = mil.sub(x=inputs, y=mil.reduce_mean(x=inputs, axes=[1], keep_dims=True))
        squares = mil.mul(x=centered, y=centered)
        variance = mil.reduce_mean(x=squares, axes=[1], keep_dims=True)
        factor = mil.rsqrt(x=mil.add(x=variance, y=np.float32(epsilon)), epsilon=0.0)
        return mil.mul(x=centered, y=factor)

    def relative_norms(self, inputs: Value, epsilon: float) -> Value:
        mil = self._mil
        norms = mil.reduce_l2_norm(x=inputs, axes=[2, 3], keep_dims=True)
        mean = mil.reduce_mean(x=norms, axes=[1], keep_dims=True)
        return mil.real_div(x=norms, y=mil.add(x=mean, y=np.float32(epsilon)))

    def slice(self, inputs: Value, start: Corner, stop: Corner, stride: Pair) -> Value:
        whole = [True, True, False, False]
        return self._mil.slice_by_index(
            x=inputs,
            begin=[0, 0, *start],
            end=[0, 0, *stop],
            stride=[1, 1, *stride],
            begin_mask=whole,
            end_mask=whole,
        )

    def concatenate(self, inputs: Sequence[Value], axis: int) -> Value:
        # Axes 1, 2, 3 of [N, H, W, C] are axes 2, 3, 1 of [N, C, H, W].
        return self._mil.concat(values=list(inputs), axis=axis % 3 + 1)

    def reverse_channels(self, inputs: Value) -> Value:
        return self._mil.reverse(x=inputs, axes=[1])

    def cast(self, inputs: Value, dtype: np.dtype) -> Value:
        # Core ML itself converts images to float32. Only the class map is cast, to int32.
        name = {"float32": "fp32", "int32": "int32"}[dtype.name]
        if inputs.dtype.__name__ == name:
            return inputs
        return self._mil.cast(x=inputs, dtype=name)

    def argmax(self, inputs: Value) -> Value:
        return self._mil.reduce_argmax(x=inputs, axis=1, keep_dims=False)

    def seen(self, value: Value, shape: Sequence[Any]) -> None:
        pass


def write_coreml(program: Program, path: str | Path) -> None:
    """Writes a Core ML package (model type "ML program") for iOS 15, macOS 12 and later.

    The input of a network for RGB pixels has Core ML's type image. The input for normalized images
    or other bands is an array float32 [1, H, W, C].

    Args:
      program: program to export. Its image size must be fixed, and its batch size must be 1 or
        None.
      path: path of the package, a directory that ends in `.mlpackage`; it is written atomically.

    Raises:
      DeepLabError: coremltools is not installed, the path or the batch size is illegal, the path
        is a mount point or the current directory, or an operation of the network cannot be
        exported.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise DeepLabError(f"{path} must end in {SUFFIX}, the suffix of Core ML packages")
    if program.options.batch not in (None, 1):
        raise DeepLabError(
            "a Core ML file takes one image per call; omit --batch, or give --batch=1"
        )
    check_replaceable(path)
    coremltools = _import_coremltools()
    metadata = _describe(program)
    with quiet_logger("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # coremltools draws progress bars on stderr.
        with contextlib.redirect_stderr(io.StringIO()):
            model = _convert(program, metadata, coremltools)
        model.short_description = f"Semantic segmentation: {metadata.output['meaning']}"
        model.author, model.version = "deeplab_jax", metadata.version
        model.input_description["image"] = _input_text(metadata)
        model.output_description[metadata.output["name"]] = metadata.output["meaning"]
        model.user_defined_metadata[KEY] = metadata.to_json()
        model.user_defined_metadata[f"{PREVIEW}.type"] = "imageSegmenter"
        model.user_defined_metadata[f"{PREVIEW}.params"] = json.dumps(
            {
                "labels": metadata.class_names,
                "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in metadata.palette],
            }
        )
        with replacing_directory(path, overwrite=True) as temporary:
            temporary.rmdir()
            model.save(str(temporary))


def _import_coremltools() -> Any:
    with quiet_logger("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        return import_extra("coremltools", "coreml", "Core ML export")


def _describe(program: Program) -> Metadata:
    """Returns the metadata of the Core ML file, with batch size 1.

    The dtype of the input is `image` for RGB pixels, otherwise float32.
    """
    metadata = describe(program)
    shape = [1, *metadata.input["shape"][1:]]
    dtype = "image" if _takes_image(program) else "float32"
    return dataclasses.replace(
        metadata,
        input=metadata.input | {"dtype": dtype, "shape": shape},
        output=metadata.output | {"shape": [1, *metadata.output["shape"][1:]]},
    )


def _takes_image(program: Program) -> bool:
    return program.options.preprocessing and program.predictor.model.architecture.takes_rgb


def _input_text(metadata: Metadata) -> str:
    """Returns a description of the input, which Xcode shows."""
    _, height, width, channels = metadata.input["shape"]
    if metadata.input["dtype"] == "image":
        return f"RGB image of {height}x{width} pixels"
    normalization = metadata.input["normalization"]
    kind = "pixels" if normalization == "inside" else "normalized image"
    return f"{kind}, float32 [1, {height}, {width}, {channels}]"


def _convert(program: Program, metadata: Metadata, coremltools: Any) -> Any:
    """Converts a program to a Core ML model with coremltools, and returns the model."""
    from coremltools.converters.mil import Builder

    _, height, width, channels = shape = tuple(metadata.input["shape"])
    takes_image, name = metadata.input["dtype"] == "image", metadata.output["name"]
    given = jax.ShapeDtypeStruct(shape, program.input_dtype)
    traced = jax.make_jaxpr(program.function)(given)
    if takes_image:
        shape = (1, channels, height, width)
        inputs = [coremltools.ImageType("image", shape, color_layout=coremltools.colorlayout.RGB)]
    else:
        inputs = [coremltools.TensorType("image", shape)]

    def network(image: Any) -> Any:
        maps = image if takes_image else Builder.transpose(x=image, perm=[0, 3, 1, 2])
        result = translate(traced, maps, MilWriter(Builder))
        if program.options.argmax:
            return Builder.identity(x=result, name=name)
        return Builder.transpose(x=result, perm=[0, 2, 3, 1], name=name)

    program_of = Builder.program(
        input_specs=[Builder.TensorSpec(shape=shape)], opset_version=coremltools.target.iOS15
    )
    return coremltools.convert(
        program_of(network),
        source="milinternal",
        convert_to="mlprogram",
        inputs=inputs,
        compute_precision=getattr(coremltools.precision, program.options.dtype.upper()),
        minimum_deployment_target=coremltools.target.iOS15,
        skip_model_load=True,
    )
