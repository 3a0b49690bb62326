"""A network's program in ONNX's operations, whose maps are [N, C, H, W]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deeplab_jax.deploy.translation import Pair, Value
from deeplab_jax.ops import Padding

BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"}


class OnnxWriter:
    """Collects nodes and constants; a value is a node's name.

    Attributes:
      nodes: in order.
      constants: weights and what else is fixed.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: dict[bytes, str] = {}
        # Where a symbolic height or width was seen: (value, axis of [N, C, H, W]).
        self._lengths: dict[Any, tuple[str, int]] = {}
        self._dtypes: dict[str, np.dtype] = {}

    def node(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Adds an operation and returns the name of its result."""
        inputs = [self.constant(i) if isinstance(i, np.ndarray) else i for i in inputs]
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Adds a constant, once, and returns its name."""
        key = b"%s %s " % (str(array.dtype).encode(), str(array.shape).encode()) + array.tobytes()
        if key not in self._names:
            self._names[key] = f"constant_{len(self.constants)}"
            # Arrays of some layouts are not taken.
            self.constants.append(
                numpy_helper.from_array(np.ascontiguousarray(array), self._names[key])
            )
        return self._names[key]

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
        operands = [inputs, kernel.transpose(3, 2, 0, 1), *([] if bias is None else [bias])]
        return self.node(
            "Conv",
            *operands,
            kernel_shape=kernel.shape[:2],
            strides=stride,
            pads=_pads(padding),
            dilations=rate,
            group=groups,
        )

    def binary(self, name: str, left: Value, right: Value) -> Value:
        if name == "max" and isinstance(right, np.ndarray) and not right.any():
            return self.node("Relu", left)
        return self.node(BINARY[name], _broadcasting(left), _broadcasting(right))

    def resize(self, inputs: Value, like: Sequence[Any], align_corners: bool) -> Value:
        mode = "align_corners" if align_corners else "half_pixel"
        return self.node(
            "Resize",
            inputs,
            "",
            "",
            self._size(like[1:3]),
            axes=[2, 3],
            mode="linear",
            coordinate_transformation_mode=mode,
        )

    def _size(self, size: Sequence[Any]) -> Value:
        """Returns (H, W) as a constant, or taken from maps that have them."""
        if all(isinstance(length, int) for length in size):
            return np.array(size, np.int64)
        parts = []
        for length in size:
            value, axis = self._lengths[length]
            parts.append(self.node("Shape", value, start=axis, end=axis + 1))
        return self.node("Concat", *parts, axis=0)

    def mean(self, inputs: Value) -> Value:
        return self.node("GlobalAveragePool", inputs)

    def pool(self, kind: str, inputs: Value, window: Pair, stride: Pair, padding: Padding) -> Value:
        options = {"kernel_shape": window, "strides": stride, "pads": _pads(padding)}
        if kind == "max":
            return self.node("MaxPool", inputs, **options)
        means = self.node("AveragePool", inputs, count_include_pad=1, **options)
        return self.node("Mul", means, np.float32(np.prod(window)).reshape(1))

    def concatenate(self, inputs: Sequence[Value]) -> Value:
        return self.node("Concat", *inputs, axis=1)

    def reverse_channels(self, inputs: Value) -> Value:
        return self.node("Gather", inputs, np.array([2, 1, 0]), axis=1)

    def cast(self, inputs: Value, dtype: np.dtype) -> Value:
        return self.node("Cast", inputs, to=helper.np_dtype_to_tensor_dtype(dtype))

    def argmax(self, inputs: Value) -> Value:
        index = self.node("ArgMax", inputs, axis=1, keepdims=0)
        return self.cast(index, np.dtype(np.int32))

    def seen(self, value: Value, shape: Sequence[Any]) -> None:
        if len(shape) == 4:
            for axis in (1, 2):
                if not isinstance(shape[axis], int):
                    self._lengths.setdefault(shape[axis], (value, axis + 1))


def _pads(padding: Padding) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


def _broadcasting(value: Value) -> Value:
    """Returns a constant of [N, H, W, C] as one of [N, C, H, W]."""
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 4:
        return value.transpose(0, 3, 1, 2)
    return value.reshape(-1, 1, 1) if value.ndim == 1 else value
