"""Core ML neural networks (`.mlmodel`): float and quantised weights, read without Core ML."""

import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra
from deeplab_jax.pretrained.readers.graph import GraphConvolution, published_graph, scope_of
from deeplab_jax.pretrained.weights import PublishedWeights, Size

NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")


def read_core_ml(path: Path) -> PublishedWeights:
    """Reads the convolutions of a Core ML neural network; quantised weights come as floats.

    Raises:
      DeepLabError: it is no Core ML neural network, is damaged, or coremltools is missing.
    """
    schema = _schema()
    model = schema.Model()
    model.ParseFromString(path.read_bytes())
    kind = model.WhichOneof("Type")
    if kind not in NETWORKS:
        raise DeepLabError(f"it is no Core ML neural network but {kind or 'something else'}")
    image = next((i for i in model.description.input if i.type.HasField("imageType")), None)
    if image is None:
        raise DeepLabError("none of its inputs is an image")
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
    """Returns the protocol buffers of Core ML; importing coremltools warns of much else."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_extra("coremltools.proto.Model_pb2", "coreml", "a Core ML file")
    finally:
        logger.setLevel(level)


def _convolutions(layers: Any, sizes: dict[str, Size]) -> Iterator[GraphConvolution]:
    """Yields the convolutions; `sizes`, of the maps by name, grows along the way."""
    for layer in layers:
        known = [sizes[name] for name in layer.input if name in sizes]
        size = known[0] if known else (1, 1)
        if layer.HasField("convolution"):
            size = _convolved(layer.convolution, size)
            yield _convolution(layer, size)
        elif layer.HasField("innerProduct"):
            yield _inner_product(layer)
        elif layer.HasField("resizeBilinear"):
            size = tuple(layer.resizeBilinear.targetSize)
        elif layer.HasField("pooling"):
            size = _pooled(layer.pooling, size)
        elif layer.HasField("padding"):
            size = _windows(size, layer.padding.paddingAmounts, (1, 1), (1, 1))
        sizes |= dict.fromkeys(layer.output, size)


def _convolution(layer: Any, size: Size) -> GraphConvolution:
    options = layer.convolution
    shape = (options.outputChannels, options.kernelChannels, *_pair(options.kernelSize, 3))
    kernel = _values(options.weights, shape, layer.name)
    depthwise = options.nGroups > 1
    if depthwise and (options.nGroups != options.outputChannels or options.kernelChannels != 1):
        raise DeepLabError(f"{layer.name} is a grouped convolution, which no DeepLab has")
    return GraphConvolution(
        scope=_scope(layer.name),
        kernel=kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0),
        bias=_values(options.bias, shape[:1], layer.name) if options.hasBias else None,
        depthwise=depthwise,
        map_size=size,
        rate=_pair(options.dilationFactor, 1),
    )


def _inner_product(layer: Any) -> GraphConvolution:
    options = layer.innerProduct
    shape = (options.outputChannels, options.inputChannels)
    return GraphConvolution(
        scope=_scope(layer.name),
        kernel=_values(options.weights, shape, layer.name).T[None, None],
        bias=_values(options.bias, shape[:1], layer.name) if options.hasBias else None,
        depthwise=False,
        map_size=(1, 1),
    )


def _scope(name: str) -> str:
    return scope_of(name.partition(":")[0])


def _values(weights: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Returns stored weights as float32, whatever they were stored as.

    Raises:
      DeepLabError: their number is not that of the shape.
    """
    count = math.prod(shape)
    if len(weights.floatValue):
        values = np.array(weights.floatValue, np.float32)
    elif weights.float16Value:
        values = np.frombuffer(weights.float16Value, "<f2").astype(np.float32)
    else:
        values = _dequantized(weights, count, shape[0])
    if values.size != count:
        raise DeepLabError(f"{name} holds {values.size} weights instead of {count}")
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
    """Returns the unsigned numbers of `bits` bits each that were packed, highest bit first."""
    if bits == 8:
        return np.frombuffer(raw, np.uint8)
    stream = np.unpackbits(np.frombuffer(raw, np.uint8))[: count * bits].reshape(-1, bits)
    return stream @ (1 << np.arange(bits)[::-1])


def _convolved(options: Any, size: Size) -> Size:
    kernel, stride = _pair(options.kernelSize, 3), _pair(options.stride, 1)
    rate = _pair(options.dilationFactor, 1)
    if options.WhichOneof("ConvolutionPaddingType") == "same":
        return tuple(-(-length // step) for length, step in zip(size, stride, strict=True))
    reach = ((taps - 1) * step + 1 for taps, step in zip(kernel, rate, strict=True))
    return _windows(size, options.valid.paddingAmounts, tuple(reach), stride)


def _pooled(options: Any, size: Size) -> Size:
    if options.globalPooling:
        return 1, 1
    stride = _pair(options.stride, 1)
    if options.WhichOneof("PoolingPaddingType") == "same":
        return tuple(-(-length // step) for length, step in zip(size, stride, strict=True))
    return _windows(size, options.valid.paddingAmounts, _pair(options.kernelSize, 3), stride)


def _windows(size: Size, amounts: Any, reach: Size, stride: Size) -> Size:
    return tuple(
        (length + added - taps) // step + 1
        for length, added, taps, step in zip(size, _added(amounts), reach, stride, strict=True)
    )


def _added(amounts: Any) -> list[int]:
    """Returns by how much rows and columns are padded; nothing is stored where they are not."""
    edges = [edge.startEdgeSize + edge.endEdgeSize for edge in amounts.borderAmounts]
    return edges or [0, 0]


def _pair(values: Any, default: int) -> Size:
    return tuple(values) if len(values) == 2 else (default, default)
