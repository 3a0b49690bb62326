"""TFLite (LiteRT): a network's traced program in TensorFlow's operations, converted."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import KEY, Metadata, describe, parse_metadata
from deeplab_jax.export.program import Program
from deeplab_jax.export.translation import Pair, Value, translate
from deeplab_jax.files import replacing
from deeplab_jax.lazy import import_tensorflow
from deeplab_jax.ops import Padding, same_padding

BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "max": "maximum",
    "min": "minimum",
}


class TensorFlowWriter:
    """Says each operation in one of TensorFlow's that TFLite has, too."""

    def __init__(self, tensorflow: ModuleType) -> None:
        self._tf = tensorflow

    def convolution(
        self,
        inputs: Value,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        stride: Pair,
        padding: Padding,
        rate: Pair,
        groups: int,
    ) -> Value:
        inputs, name = self._padded(inputs, kernel.shape[:2], stride, padding, rate)
        options = {
            "strides": [1, *stride, 1],
            "padding": name,
            "dilations": [1, *rate, 1],
        }
        raw = self._tf.raw_ops
        if groups > 1:
            # [rows, columns, 1, channels] is [rows, columns, channels, 1] there.
            filters = kernel.transpose(0, 1, 3, 2)
            outputs = raw.DepthwiseConv2dNative(input=inputs, filter=filters, **options)
        else:
            outputs = raw.Conv2D(input=inputs, filter=kernel, **options)
        return outputs if bias is None else self._tf.nn.bias_add(outputs, bias)

    def _padded(
        self,
        inputs: Value,
        window: Sequence[int],
        stride: Pair,
        padding: Padding,
        rate: Pair = (1, 1),
        value: float = 0,
    ) -> tuple[Value, str]:
        """Returns the inputs and `SAME` or `VALID`; pads where TensorFlow has no name for it."""
        if not any(map(any, padding)):
            return inputs, "VALID"
        size = tuple(inputs.shape[1:3])
        same = tuple(
            same_padding((length, 1), taps, step, along)[0]
            for length, taps, step, along in zip(size, window, stride, rate, strict=True)
        )
        if same == tuple(map(tuple, padding)):
            return inputs, "SAME"
        paddings = [(0, 0), *padding, (0, 0)]
        return self._tf.pad(inputs, paddings, constant_values=value), "VALID"

    def binary(self, name: str, left: Value, right: Value) -> Value:
        tf = self._tf
        if isinstance(right, np.ndarray):
            right = right.astype(left.dtype.as_numpy_dtype)
            if name == "max" and not right.any():
                return tf.nn.relu(left)
            if name == "min" and right.size == 1 and right == 6 and left.op.type == "Relu":
                return tf.nn.relu6(left.op.inputs[0])
        elif isinstance(left, np.ndarray):
            left = left.astype(right.dtype.as_numpy_dtype)
        return getattr(tf, BINARY[name])(left, right)

    def resize(self, inputs: Value, like: Sequence[Any], align_corners: bool) -> Value:
        return self._tf.raw_ops.ResizeBilinear(
            images=inputs,
            size=[int(like[1]), int(like[2])],
            align_corners=align_corners,
            half_pixel_centers=not align_corners,
        )

    def mean(self, inputs: Value) -> Value:
        return self._tf.reduce_mean(inputs, (1, 2), keepdims=True)

    def mean_over_windows(self, inputs: Value, window: Pair, stride: Pair) -> Value:
        raise NotImplementedError("TFLite files have one size; their windows are those of `pool`")

    def pool(self, kind: str, inputs: Value, window: Pair, stride: Pair, padding: Padding) -> Value:
        # The smallest number, for TFLite has no infinity in all its kernels.
        least = np.finfo(np.float32).min if kind == "max" else 0.0
        if kind == "max":
            inputs, name = self._padded(inputs, window, stride, padding, value=least)
            return self._tf.nn.max_pool2d(inputs, window, stride, name)
        if any(map(any, padding)):
            inputs = self._tf.pad(inputs, [(0, 0), *padding, (0, 0)])
        return self._tf.nn.avg_pool2d(inputs, window, stride, "VALID") * float(np.prod(window))

    def concatenate(self, inputs: Sequence[Value]) -> Value:
        return self._tf.concat(inputs, -1)

    def reverse_channels(self, inputs: Value) -> Value:
        return self._tf.reverse(inputs, [-1])

    def cast(self, inputs: Value, dtype: np.dtype) -> Value:
        return self._tf.cast(inputs, dtype)

    def argmax(self, inputs: Value) -> Value:
        return self._tf.argmax(inputs, -1, output_type=self._tf.int32)

    def seen(self, value: Value, shape: Sequence[Any]) -> None:
        pass


# The first bytes of a TFLite file, after an offset of four.
IDENTIFIER = b"TFL3"


def write_tflite(
    program: Program, path: str | Path, calibration: Sequence[np.ndarray] | None = None
) -> None:
    """Writes a TFLite file, in 32-bit floats or in 8-bit integers.

    Integers are TensorFlow's: kernels int8 with a scale an output channel, maps int8 with one scale
    and zero point each, from the ranges that images give. Input and output stay as the options say.

    Args:
      program: to be exported; its size must be fixed.
      path: of the file, which is written whole or not at all.
      calibration: images, uint8 [H, W, 3], that the ranges are measured on; None: floats.

    Raises:
      DeepLabError: TensorFlow is not installed, or the network has what TFLite has not.
    """
    converter = tflite_converter(program)
    if calibration is not None:
        converter.optimizations = [
            import_tensorflow("tflite", "TFLite export").lite.Optimize.DEFAULT
        ]
        converter.representative_dataset = lambda: _samples(program, calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = converter.convert()
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(_with_metadata(content, describe(program)))


def tflite_converter(program: Program) -> Any:
    """Returns TensorFlow's converter of a program, to be set up further.

    Raises:
      DeepLabError: TensorFlow is not installed, or the network has what TFLite has not.
    """
    tensorflow = import_tensorflow("tflite", "TFLite export")
    shape = program.input_shape()
    traced = jax.make_jaxpr(program.function)(
        jax.ShapeDtypeStruct(shape, program.options.input_dtype)
    )
    # TFLite gives results in the order of names; there is one.
    name = "class_map" if program.options.argmax else "logits"

    def network(image: Any) -> dict[str, Any]:
        return {name: translate(traced, image, TensorFlowWriter(tensorflow))}

    specification = tensorflow.TensorSpec(
        [program.options.batch, *shape[1:]], program.options.input_dtype.name, name="image"
    )
    module = tensorflow.Module()
    module.network = tensorflow.function(network, input_signature=[specification], autograph=False)
    return tensorflow.lite.TFLiteConverter.from_concrete_functions(
        [module.network.get_concrete_function()], module
    )


def _samples(program: Program, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yields what the network takes, an image each."""
    metadata, size = describe(program), program.own_size
    fill = program.predictor.model.architecture.mean_pixel
    for image in images:
        padded = pad(fitted(image, size), size, fill)
        yield [metadata.normalized(padded[None])]


def _with_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Returns the file with an entry of metadata more."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata.to_json().encode())
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def read_tflite_metadata(path: str | Path) -> Metadata:
    """Reads the metadata of a file that `write_tflite` wrote; needs no TensorFlow.

    Raises:
      DeepLabError: the file is another.
    """
    import tflite

    content = Path(path).read_bytes()
    if content[4:8] != IDENTIFIER:
        raise DeepLabError(f"{path} is no TFLite file")
    model = tflite.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == KEY.encode():
            return parse_metadata(
                model.Buffers(entry.Buffer()).DataAsNumpy().tobytes(), where=str(path)
            )
    raise DeepLabError(f"{path} has no metadata of deeplab_jax; deeplab-jax export writes them")
