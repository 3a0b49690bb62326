"""Reader of Core ML neural networks (`.mlmodel`) with float or quantized weights."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra, quiet_logger
from deeplab_jax.pretrained.readers.graph import GraphConvolution, published_graph, scope_of
from deeplab_jax.pretrained.weights import PublishedWeights, Size

NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")


def read_core_ml(path: Path) -> PublishedWeights:
    """Reads the convolutions of a Core ML neural network; quantized weights become floats.

    Raises:
      DeepLabError: the file is not a Core ML neural network, or coremltools is not installed.
    """
    model = _schema().Model()
    model.ParseFromString(path.read_bytes())
    kind = model.WhichOneof("Type")
    if kind not in NETWORKS:
        raise DeepLabError(
            f"the type of the Core ML model is {kind or 'unknown'}; only neural networks are "
            "supported"
        )
    image = next((i for i in model.description.input if i.type.HasField("imageType")), None)
    if image is None:
        raise DeepLabError("the Core ML model must have an image as input, but has none")
    size = (image.type.imageType.height, image.type.imageType.width)
    layers = getattr(model, kind).layers
    window = next((layer.pooling.kernelSize for layer in layers if layer.HasField("pooling")), None)
    return published_graph(
        _convolutions(layers, {image.name: size}),
        size,
        pooling_window=tuple(window) if window else None,
        align_corners=True if any(layer.HasField("resizeBilinear") for layer in layers) else None,
    )


def _schema() -> Any:
    """Imports the module of the Core ML protocol buffers, without the warnings of coremltools."""
    with quiet_logger("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra("coremltools.proto.Model_pb2", "coreml", "a Core ML file")


def _convolutions(layers: Any, sizes: dict[str, Size]) -> Iterator[GraphConvolution]:
    """Yields the convolutions of a network.

    Args:
      layers: layers in the Core ML file, in order of computation.
      sizes: (h, w) of each feature map by name. The caller passes the size of the image, and this
        function adds the sizes of all other maps.
    """
    for layer in layers:
        known = [sizes[name] for name in layer.input if name in sizes]
        size = known[0] if known else (1, 1)
        if layer.HasField("convolution"):
            options = layer.convolution
            kernel, rate = _pair(options.kernelSize, 3), _pair(options.dilationFactor, 1)
            reach = (kernel[0] - 1) * rate[0] + 1, (kernel[1] - 1) * rate[1] + 1
            size = _strided(size, options, "ConvolutionPaddingType", reach)
            yield _convolution(layer, size)
        elif layer.HasField("innerProduct"):
            yield _inner_product(layer)
        elif layer.HasField("resizeBilinear"):
            size = tuple(layer.resizeBilinear.targetSize)
        elif layer.HasField("pooling") and layer.pooling.globalPooling:
            size = (1, 1)
        elif layer.HasField("pooling"):
            reach = _pair(layer.pooling.kernelSize, 3)
            size = _strided(size, layer.pooling, "PoolingPaddingType", reach)
        elif layer.HasField("padding"):
            size = _windows(size, layer.padding.paddingAmounts, (1, 1), (1, 1))
        sizes |= dict.fromkeys(layer.output, size)


def _convolution(layer: Any, size: Size) -> GraphConvolution:
    options = layer.convolution
    shape = (options.outputChannels, options.kernelChannels, *_pair(options.kernelSize, 3))
    kernel = _values(options.weights, shape, layer.name)
    depthwise = options.nGroups > 1
    if depthwise and (options.nGroups != options.outputChannels or options.kernelChannels != 1):
        raise DeepLabError(f"{layer.name} is a grouped convolution, which is not supported")
    return GraphConvolution(
        scope=_scope(layer.name),
        kernel=kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0),
        bias=_bias(options, layer.name),
        depthwise=depthwise,
        map_size=size,
        rate=_pair(options.dilationFactor, 1),
    )


def _inner_product(layer: Any) -> GraphConvolution:
    options = layer.innerProduct
    shape = (options.outputChannels, options.inputChannels)
    kernel = _values(options.weights, shape, layer.name).T[None, None]
    return GraphConvolution(_scope(layer.name), kernel, _bias(options, layer.name))


def _bias(options: Any, name: str) -> np.ndarray | None:
    return _values(options.bias, (options.outputChannels,), name) if options.hasBias else None


def _scope(name: str) -> str:
    return scope_of(name.partition(":")[0])


def _values(weights: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Returns stored weights of any type as float32.

    Raises:
      DeepLabError: the number of weights does not match the shape.
    """
    count = math.prod(shape)
    if len(weights.floatValue):
        values = np.array(weights.floatValue, np.float32)
    elif weights.float16Value:
        values = np.frombuffer(weights.float16Value, "<f2").astype(np.float32)
    else:
        values = _dequantized(weights, count, shape[0])
    if values.size != count:
        raise DeepLabError(f"{name} has {values.size} weights, but its shape requires {count}")
    return values.reshape(shape)


def _dequantized(weights: Any, count: int, channels: int) -> np.ndarray:
    quantization = weights.quantization
    codes = _unpacked(weights.rawValue, quantization.numberOfBits, count)
    if quantization.HasField("lookupTableQuantization"):
        table = np.array(quantization.lookupTableQuantization.floatValue, np.float32)
        return table[codes]
    scale = np.array(quantization.linearQuantization.scale, np.float32)
    bias = np.array(quantization.linearQuantization.bias or [0.0], np.float32)
    by_channel = codes.reshape(channels, -1).astype(np.float32)
    return (by_channel * scale.reshape(-1, 1) + bias.reshape(-1, 1)).ravel()


def _unpacked(raw: bytes, bits: int, count: int) -> np.ndarray:
    """Unpacks `count` unsigned integers of `bits` bits each, most significant bit first."""
    if bits == 8:
        return np.frombuffer(raw, np.uint8)
    stream = np.unpackbits(np.frombuffer(raw, np.uint8))[: count * bits].reshape(-1, bits)
    return stream @ (1 << np.arange(bits)[::-1])


def _strided(size: Size, options: Any, padding: str, reach: Size) -> Size:
    """Returns the output size (h, w) of a convolution or pooling.

    Args:
      size: (h, w) of the input.
      options: fields of the layer in the Core ML file.
      padding: name of the field that selects the padding.
      reach: height and width of the windows in pixels, including the gaps of an atrous kernel.
    """
    stride = _pair(options.stride, 1)
    if options.WhichOneof(padding) == "same":
        return -(-size[0] // stride[0]), -(-size[1] // stride[1])
    return _windows(size, options.valid.paddingAmounts, reach, stride)


def _windows(size: Size, amounts: Any, reach: Size, stride: Size) -> Size:
    # Without padding, the list is empty.
    edges = [edge.startEdgeSize + edge.endEdgeSize for edge in amounts.borderAmounts] or [0, 0]
    height, width = (
        (length + added - taps) // step + 1
        for length, added, taps, step in zip(size, edges, reach, stride, strict=True)
    )
    return height, width


def _pair(values: Any, default: int) -> Size:
    return tuple(values) if len(values) == 2 else (default, default)
