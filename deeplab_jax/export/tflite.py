"""TFLite (LiteRT) export: translates a traced program to TensorFlow, which writes the file."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import KEY, NO_METADATA, Metadata, describe, parse_metadata
from deeplab_jax.export.program import Program
from deeplab_jax.export.translation import Corner, Geometry, Pair, Value, translate
from deeplab_jax.files import replacing
from deeplab_jax.lazy import import_tensorflow
from deeplab_jax.ops import Padding, same_padding

BINARY = {"sub": "subtract", "mul": "multiply", "div": "divide", "max": "maximum", "min": "minimum"}


class TensorFlowWriter:
    """Writes a program as TensorFlow operations that TFLite supports; maps are [N, H, W, C]."""

    def __init__(self, tensorflow: ModuleType) -> None:
        self._tf = tensorflow

    def convolution(
        self, inputs: Value, kernel: np.ndarray, bias: np.ndarray | None, geometry: Geometry
    ) -> Value:
        stride, padding, rate, groups = geometry
        inputs, name = self._padded(inputs, kernel.shape[:2], stride, padding, rate)
        options = {"strides": [1, *stride, 1], "padding": name, "dilations": [1, *rate, 1]}
        raw = self._tf.raw_ops
        convolve = raw.Conv2D
        if groups == inputs.shape[-1] and groups > 1:
            # Depthwise kernels of TensorFlow have the shape [rows, columns, channels, 1].
            convolve, kernel = raw.DepthwiseConv2dNative, kernel.transpose(0, 1, 3, 2)
        outputs = convolve(input=inputs, filter=kernel, **options)
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
        """Replaces explicit `padding` by a padding mode of TensorFlow, if one is equivalent.

        Returns:
          The inputs and the mode, `SAME` or `VALID` (no padding). If neither mode is equivalent to
          `padding`, the returned inputs are padded with `value`, and the mode is `VALID`.
        """
        if not any(map(any, padding)):
            return inputs, "VALID"
        axes = zip(inputs.shape[1:3], window, stride, rate, strict=True)
        same = tuple(same_padding((length, 1), *axis)[0] for length, *axis in axes)
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
        return getattr(tf, BINARY.get(name, name))(left, right)

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
        raise NotImplementedError(
            "mean_over_windows is only for variable image sizes, which TFLite files do not "
            "support; call `pool` instead"
        )

    def pool(self, kind: str, inputs: Value, window: Pair, stride: Pair, padding: Padding) -> Value:
        if kind == "max":
            # Some kernels of TFLite do not support infinity.
            least = float(np.finfo(np.float32).min)
            inputs, name = self._padded(inputs, window, stride, padding, value=least)
            return self._tf.nn.max_pool2d(inputs, window, stride, name)
        if kind == "mean":
            # With SAME padding, TensorFlow averages over the pixels inside the map only.
            return self._tf.nn.avg_pool2d(inputs, window, stride, "SAME")
        if any(map(any, padding)):
            inputs = self._tf.pad(inputs, [(0, 0), *padding, (0, 0)])
        return self._tf.nn.avg_pool2d(inputs, window, stride, "VALID") * float(np.prod(window))

    def sigmoid(self, inputs: Value) -> Value:
        return self._tf.sigmoid(inputs)

    def gelu(self, inputs: Value) -> Value:
        return self._tf.nn.gelu(inputs)

    def standardize_channels(self, inputs: Value, epsilon: float) -> Value:
        tf = self._tf
        centered = inputs - tf.reduce_mean(inputs, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), -1, keepdims=True)
        return centered * tf.math.rsqrt(variance + epsilon)

    def relative_norms(self, inputs: Value, epsilon: float) -> Value:
        tf = self._tf
        norms = tf.sqrt(tf.reduce_sum(tf.square(inputs), (1, 2), keepdims=True))
        return norms / (tf.reduce_mean(norms, -1, keepdims=True) + epsilon)

    def slice(self, inputs: Value, start: Corner, stop: Corner, stride: Pair) -> Value:
        rows, columns = map(slice, start, stop, stride)
        return inputs[:, rows, columns]

    def concatenate(self, inputs: Sequence[Value], axis: int) -> Value:
        return self._tf.concat(inputs, axis)

    def reverse_channels(self, inputs: Value) -> Value:
        return self._tf.reverse(inputs, [-1])

    def cast(self, inputs: Value, dtype: np.dtype) -> Value:
        return self._tf.cast(inputs, dtype)

    def argmax(self, inputs: Value) -> Value:
        return self._tf.argmax(inputs, -1, output_type=self._tf.int32)

    def seen(self, value: Value, shape: Sequence[Any]) -> None:
        pass


# File identifier: bytes 4 to 7 of a TFLite file.
IDENTIFIER = b"TFL3"


def write_tflite(
    program: Program, path: str | Path, calibration: Sequence[np.ndarray] | None = None
) -> None:
    """Writes a TFLite file that computes in floats or in 8-bit integers.

    For 8-bit integers, TensorFlow quantizes kernels to int8 with a scale per output channel, and
    feature maps to int8 with a scale and a zero point per map. Scale and zero point of a map are
    computed from its range on the calibration images. The dtypes of input and output do not change.

    Args:
      program: program to export; its size must be fixed.
      path: path of the file, which is written atomically.
      calibration: images uint8 [H, W, 3] on which ranges are measured; None: no quantization.

    Raises:
      DeepLabError: TensorFlow is not installed, or an operation of the network is not supported.
    """
    tensorflow = import_tensorflow("tflite", "TFLite export")
    converter = _converter(program, tensorflow)
    if program.options.dtype == "float16":
        # Weights are stored in float16. Each runtime decides whether it computes in float16.
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tensorflow.float16]
    if calibration is not None:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(program, calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = converter.convert()
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(_with_metadata(content, describe(program)))


def _converter(program: Program, tensorflow: ModuleType) -> Any:
    """Returns a TFLite converter for a program, which is first translated to TensorFlow."""
    shape = (*program.own_size, program.predictor.model.architecture.in_channels)
    batch, dtype = program.options.batch, program.input_dtype
    traced = jax.make_jaxpr(program.function)(jax.ShapeDtypeStruct((batch or 1, *shape), dtype))
    name = "class_map" if program.options.argmax else "logits"

    def network(image: Any) -> dict[str, Any]:
        return {name: translate(traced, image, TensorFlowWriter(tensorflow))}

    specification = tensorflow.TensorSpec([batch, *shape], dtype.name, name="image")
    module = tensorflow.Module()
    module.network = tensorflow.function(network, input_signature=[specification], autograph=False)
    return tensorflow.lite.TFLiteConverter.from_concrete_functions(
        [module.network.get_concrete_function()], module
    )


def _samples(program: Program, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yields each calibration image as the network's input: downsampled, padded and normalized.

    Each image is in a list of its own, because TensorFlow expects a list of all network inputs.
    """
    metadata, size = describe(program), program.own_size
    for image in images:
        padded = pad(fitted(image, size), size, metadata.sizes["fill"])
        yield [metadata.normalized(padded[None])]


def _with_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Returns the content of a TFLite file with the metadata added."""
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
    """Reads the metadata of a file that `write_tflite` wrote; does not require TensorFlow.

    Raises:
      DeepLabError: the file is not a TFLite file or has no metadata.
    """
    import tflite

    content = Path(path).read_bytes()
    if content[4:8] != IDENTIFIER:
        raise DeepLabError(f"{path} is not a TFLite file; {NO_METADATA}")
    model = tflite.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == KEY.encode():
            buffer = model.Buffers(entry.Buffer())
            return parse_metadata(buffer.DataAsNumpy().tobytes(), where=str(path))
    raise DeepLabError(
        f"{path} cannot be used, because it has no metadata of deeplab_jax; {NO_METADATA}"
    )
