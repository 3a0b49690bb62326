"""Reader of TFLite files with float, half-precision or integer weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.readers import graph
from deeplab_jax.pretrained.weights import PublishedWeights, Size

MAGIC = b"TFL3"
DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.UINT8: np.uint8,
    tflite.TensorType.INT8: np.int8,
    tflite.TensorType.INT64: np.int64,
}
OPERATORS = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)
}
# Operators that do not change the values of their first input, except precision and layout.
TRANSPARENT = ("DEQUANTIZE", "QUANTIZE", "SPACE_TO_BATCH_ND", "PAD", "RESHAPE")


def read_tflite(path: Path) -> PublishedWeights:
    """Reads the convolutions of a TFLite file; integer weights are dequantized.

    Raises:
      DeepLabError: the file is not a TFLite file, or contains weights that cannot be read.
    """
    content = path.read_bytes()
    if content[4:8] != MAGIC:
        raise DeepLabError("the file is not a TFLite file: the identifier TFL3 is missing")
    return _Network(content).published()


# Name and operator of a tensor that no operator computes.
NO_PRODUCER: tuple[str, Any] = ("", None)


class _Network:
    """Operators and tensors of a TFLite file, which must have a single subgraph."""

    def __init__(self, content: bytes) -> None:
        self.model = tflite.Model.GetRootAsModel(content, 0)
        if self.model.SubgraphsLength() != 1:
            raise DeepLabError(f"the file has {self.model.SubgraphsLength()} subgraphs; expected 1")
        self.graph = self.model.Subgraphs(0)
        operators = [self.graph.Operators(n) for n in range(self.graph.OperatorsLength())]
        self.operators = [(self._operator_name(operator), operator) for operator in operators]
        self.producers: dict[int, tuple[str, Any]] = {
            int(output): (name, operator)
            for name, operator in self.operators
            for output in operator.OutputsAsNumpy()
        }

    def published(self) -> PublishedWeights:
        image = self.graph.Tensors(self.graph.Inputs(0)).ShapeAsNumpy().tolist()
        if len(image) != 4:
            raise DeepLabError(
                f"the input of the network has the shape {image}, but must have 4 dimensions: "
                "batch, height, width and channels"
            )
        return graph.published_graph(
            self._convolutions(),
            tuple(image[1:3]),
            pooling_window=self._pooling_window(),
            align_corners=self._align_corners(),
        )

    def _operator_name(self, operator: tflite.Operator) -> str:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        # Older files do not have the first field, which is then read as 0.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return OPERATORS.get(number, str(number))

    def _convolutions(self) -> Iterator[graph.GraphConvolution]:
        for name, operator in self.operators:
            if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                yield self._convolution(operator, depthwise=name == "DEPTHWISE_CONV_2D")
            elif name == "FULLY_CONNECTED":
                yield self._fully_connected(operator)

    def _convolution(self, operator: tflite.Operator, depthwise: bool) -> graph.GraphConvolution:
        source, weights, *rest = operator.InputsAsNumpy().tolist()
        options = _options(
            operator, tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions
        )
        rate: Size = (options.DilationHFactor(), options.DilationWFactor())
        height, width = self._shape(operator.Outputs(0))[1:3]
        map_size: Size | None = (height, width)
        before, producer = self.producers.get(source, NO_PRODUCER)
        if before == "SPACE_TO_BATCH_ND":
            # Older converters rearrange the pixels for an atrous convolution, so the stored output
            # size is not that of the feature map.
            rate = tuple(self._constant(producer.Inputs(1)).astype(int).tolist())
            map_size = None
        return graph.GraphConvolution(
            scope=graph.scope_of(self._name(weights)),
            # Stored as [out, k, k, in], or [1, k, k, channels] for a depthwise convolution.
            kernel=self._constant(weights).transpose(1, 2, 3, 0),
            bias=self._bias(rest),
            depthwise=depthwise,
            map_size=map_size,
            rate=rate,
        )

    def _fully_connected(self, operator: tflite.Operator) -> graph.GraphConvolution:
        _, weights, *rest = operator.InputsAsNumpy().tolist()
        scope, kernel = graph.scope_of(self._name(weights)), self._constant(weights).T[None, None]
        return graph.GraphConvolution(scope, kernel, self._bias(rest))

    def _bias(self, inputs: list[int]) -> np.ndarray | None:
        return self._constant(inputs[0]) if inputs and inputs[0] >= 0 else None

    def _constant(self, number: int) -> np.ndarray:
        """Returns the values of the constant tensor with the given number, as float32.

        Raises:
          DeepLabError: the tensor is not constant, or has an unsupported type.
        """
        # The number of steps is bounded, since the operators of a damaged file can form a cycle.
        for _ in self.operators:
            name, operator = self.producers.get(number, NO_PRODUCER)
            if name not in TRANSPARENT:
                break
            number = operator.Inputs(0)
        tensor = self.graph.Tensors(number)
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(data, int) or not data.size:
            raise DeepLabError(f"the weights {self._name(number)} are not constants")
        if tensor.Type() not in DTYPES:
            raise DeepLabError(f"the weights {self._name(number)} have an unsupported type")
        values = np.frombuffer(data.tobytes(), DTYPES[tensor.Type()])
        return _dequantized(values.reshape(self._shape(number)), tensor.Quantization())

    def _shape(self, number: int) -> list[int]:
        tensor = self.graph.Tensors(number)
        return tensor.ShapeAsNumpy().tolist() if tensor.ShapeLength() else []

    def _name(self, number: int) -> str:
        return self.graph.Tensors(number).Name().decode()

    def _pooling_window(self) -> Size | None:
        """Returns (height, width) of the window of image pooling; None without image pooling."""
        convolutions = (operator for name, operator in self.operators if name == "CONV_2D")
        inputs = (
            operator.Inputs(0)
            for operator in convolutions
            if graph.scope_of(self._name(operator.Inputs(1))) == graph.IMAGE_POOLING
        )
        # Tensors are numbered from 0.
        name, operator = self.producers.get(next(inputs, -1), NO_PRODUCER)
        if name == "AVERAGE_POOL_2D":
            options = _options(operator, tflite.Pool2DOptions)
            return options.FilterHeight(), options.FilterWidth()
        if name != "MEAN":
            return None
        height, width = self._shape(operator.Inputs(0))[1:3]
        return height, width

    def _align_corners(self) -> bool | None:
        for name, operator in self.operators:
            if name == "RESIZE_BILINEAR":
                return bool(_options(operator, tflite.ResizeBilinearOptions).AlignCorners())
        return None


def _options(operator: tflite.Operator, kind: type) -> Any:
    options, table = kind(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _dequantized(
    values: np.ndarray, quantization: tflite.QuantizationParameters | None
) -> np.ndarray:
    """Returns scale·(values − zero point), per tensor or per channel, as float32."""
    if quantization is None or not quantization.ScaleLength():
        return values.astype(np.float32)
    scale = quantization.ScaleAsNumpy().astype(np.float64)
    zero = quantization.ZeroPointAsNumpy() if quantization.ZeroPointLength() else np.zeros(1)
    if scale.size > 1:
        axis = quantization.QuantizedDimension()
        along = [-1 if n == axis else 1 for n in range(values.ndim)]
        scale = scale.reshape(along)
        zero = zero.reshape(along) if zero.size > 1 else zero
    return (scale * (values.astype(np.float64) - zero)).astype(np.float32)
