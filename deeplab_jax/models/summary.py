"""Summary of a network: parameters, multiply-adds, receptive field and shapes of feature maps."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.receptive_field import Operation, Program, Value, flatten, receptive_field

Shape = tuple[int, ...]
# Maximum side of an image, in pixels. Positions in resized maps are computed as int32, and are less
# than twice the product of two sides.
MAX_SIDE = 2**15


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """Summary of one convolution.

    Attributes:
      name: path of the module, such as `backbone/block1/unit_1/conv1`.
      kernel, stride, rate: kernel size, stride and atrous rate, each (along H, along W).
      groups: number of channel groups; for a depthwise convolution, the number of input channels.
      output: shape (H, W, C) of the output.
      parameters: number of parameters of the module, including normalization; 0 if an earlier
        layer in `ModelSummary.layers` belongs to the same module, so that they count only once.
      macs: number of multiply-adds.
      macs_tf_convention: number of multiply-adds with the padding of TensorFlow, see
        `ModelSummary`.
    """

    name: str
    kernel: tuple[int, ...]
    stride: tuple[int, int]
    rate: tuple[int, int]
    groups: int
    output: Shape
    parameters: int
    macs: int
    macs_tf_convention: int


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """Computational cost of a network for one image of a given size.

    Attributes:
      parameters: number of trainable parameters.
      macs: number of multiply-adds of all convolutions; resizing and normalization are not counted.
      macs_tf_convention: like `macs`, but each side of the output of an atrous convolution is
        rounded up to a multiple of the rate, as TensorFlow pads it. This does not apply to
        depthwise and other grouped convolutions. The tables in the papers use this convention.
      output_stride: ratio of the image size to the size of the encoder output.
      receptive_field: receptive field of the scores before upsampling to the size of the image, in
        image pixels, without image pooling.
      endpoints: shape (H, W, C) of each intermediate feature map by name, in order of computation.
      layers: convolutions in order of computation.
    """

    parameters: int
    macs: int
    macs_tf_convention: int
    output_stride: int
    receptive_field: int
    endpoints: Mapping[str, Shape]
    layers: tuple[LayerSummary, ...]

    def describe(self) -> dict[str, Any]:
        """Returns the value of every field by name, for a JSON file."""
        return dataclasses.asdict(self)


def summarize(model: DeepLab, size: tuple[int, int] = (513, 513)) -> ModelSummary:
    """Traces a network and returns its computational cost for one image.

    Args:
      model: network to trace.
      size: (H, W) of the image in pixels.

    Raises:
      DeepLabError: a side is above 32,768 pixels.
    """
    if max(size) > MAX_SIDE:
        raise DeepLabError(f"size={size} is too large; give sides of at most {MAX_SIDE} pixels")
    parameters, program, endpoints = _trace(model, size)
    *_, image = program.inputs
    layers = _layers(program, parameters)
    by_time = sorted(endpoints, key=lambda name: endpoints[name].number)
    return ModelSummary(
        parameters=sum(parameters.values()),
        macs=sum(layer.macs for layer in layers),
        macs_tf_convention=sum(layer.macs_tf_convention for layer in layers),
        output_stride=model.architecture.output_stride,
        receptive_field=receptive_field(
            program, image, endpoints["scores"], model.architecture.align_corners
        ),
        endpoints={name: endpoints[name].shape[1:] for name in by_time},
        layers=layers,
    )


def trace(model: DeepLab, size: tuple[int, int]) -> Program:
    """Returns the operations of a network for one image.

    Args:
      model: network to trace.
      size: (H, W) of the image in pixels.

    Raises:
      NotImplementedError: the network contains a loop.
    """
    return _trace(model, size)[1]


def _trace(
    model: DeepLab, size: tuple[int, int]
) -> tuple[dict[str, int], Program, dict[str, Value]]:
    """Traces a network for one image of `size` (H, W).

    Returns:
      Three results:

      * number of values in each parameter, by path of the parameter
      * operations of the network
      * traced array of each endpoint, by name
    """
    image = jax.ShapeDtypeStruct((1, *size, model.architecture.in_channels), jnp.uint8)
    with ops.dispatching(export=True):
        # Tracing needs only the shape and dtype of a key.
        key = jax.eval_shape(lambda: jax.random.key(0))
        # One trace yields both the shapes of the parameters and the program.
        traced, shapes = jax.make_jaxpr(
            lambda key, image: model.init_with_output(key, image, endpoints=True),
            return_shape=True,
        )(key, image)
    program = flatten(traced)
    (_, endpoints), _ = jax.tree.unflatten(jax.tree.structure(shapes), program.outputs)
    flat = traverse_util.flatten_dict(shapes[1]["params"], sep="/")
    return {path: leaf.size for path, leaf in flat.items()}, program, endpoints


def _layers(program: Program, parameters: Mapping[str, int]) -> tuple[LayerSummary, ...]:
    layers: list[LayerSummary] = []
    seen: set[str] = set()
    for operation in program.operations:
        if operation.name != "conv_general_dilated":
            continue
        own = 0 if operation.path in seen else _parameters_below(operation.path, parameters)
        seen.add(operation.path)
        layers.append(_layer(operation, own))
    return tuple(layers)


def _parameters_below(path: str, parameters: Mapping[str, int]) -> int:
    return sum(size for name, size in parameters.items() if name.startswith(f"{path}/"))


def _layer(operation: Operation, parameters: int) -> LayerSummary:
    """Returns the summary of a convolution with array layout NHWC and kernel layout HWIO.

    Args:
      operation: the convolution.
      parameters: value of `LayerSummary.parameters`.
    """
    (_, *output), kernel = operation.outputs[0].shape, operation.inputs[1].shape
    rate, groups = operation.params["rhs_dilation"], operation.params["feature_group_count"]
    padded = [
        -(-length // step) * step if groups == 1 and taps > 1 else length
        for length, step, taps in zip(output[:2], rate, kernel[:2], strict=True)
    ]
    return LayerSummary(
        name=operation.path,
        kernel=kernel[:2],
        stride=operation.params["window_strides"],
        rate=rate,
        groups=groups,
        output=tuple(output),
        parameters=parameters,
        macs=math.prod(output[:2]) * math.prod(kernel),
        macs_tf_convention=math.prod(padded) * math.prod(kernel),
    )
