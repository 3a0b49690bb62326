"""ONNX export: a network's traced program in the operations of ONNX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import KEY, describe
from deeplab_jax.export.program import Program, input_specification, open_sizes
from deeplab_jax.export.translation import Geometry, Pair, Value, translate
from deeplab_jax.files import replacing
from deeplab_jax.lazy import import_extra
from deeplab_jax.ops import Padding

onnx = import_extra("onnx", "onnx", "ONNX export")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


class OnnxWriter:
    """Writer of an ONNX graph; a value is the name of a node's result.

    Attributes:
      nodes: nodes in order of execution.
      constants: weights and other constants.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: dict[bytes, str] = {}
        # Symbolic height or width → (value that has it, axis of [N, C, H, W]).
        self._lengths: dict[Any, tuple[str, int]] = {}
        # Symbolic heights and widths of the image, which the file checks at run time. Legal sizes
        # are k · step + plus.
        self._checked: dict[Any, str] = {}
        self._step, self._plus = 1, 0

    def node(self, kind: str, *inputs: Value, name: str = "", **attributes: Any) -> str:
        """Adds an operation and returns the name of its result.

        Inputs may be arrays, which become constants, and integers, which become int64 [1].
        """
        inputs = [np.array([i], np.int64) if isinstance(i, int) else i for i in inputs]
        inputs = [self.constant(i) if isinstance(i, np.ndarray) else i for i in inputs]
        result = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [result], name=name or result, **attributes)
        )
        return result

    def constant(self, array: np.ndarray) -> str:
        """Adds a constant, once, and returns its name."""
        key = b"%s %s " % (str(array.dtype).encode(), str(array.shape).encode()) + array.tobytes()
        if key not in self._names:
            self._names[key] = f"constant_{len(self.constants)}"
            # ONNX rejects arrays of some layouts.
            contiguous = np.ascontiguousarray(array)
            self.constants.append(numpy_helper.from_array(contiguous, self._names[key]))
        return self._names[key]

    def convolution(
        self, inputs: Value, kernel: np.ndarray, bias: np.ndarray | None, geometry: Geometry
    ) -> Value:
        operands = [inputs, kernel.transpose(3, 2, 0, 1), *([] if bias is None else [bias])]
        stride, padding, rate, groups = geometry
        options = {"strides": stride, "pads": _pads(padding), "dilations": rate, "group": groups}
        return self.node("Conv", *operands, kernel_shape=kernel.shape[:2], **options)

    def binary(self, name: str, left: Value, right: Value) -> Value:
        if name == "max" and isinstance(right, np.ndarray) and not right.any():
            return self.node("Relu", left)
        return self.node(name.capitalize(), _broadcasting(left), _broadcasting(right))

    def resize(self, inputs: Value, like: Sequence[Any], align_corners: bool) -> Value:
        mode = "align_corners" if align_corners else "half_pixel"
        options = {"axes": [2, 3], "mode": "linear", "coordinate_transformation_mode": mode}
        return self.node("Resize", inputs, "", "", self._size(like[1:3]), **options)

    def _size(self, size: Sequence[Any]) -> Value:
        """Returns (H, W) as a constant, or as computed from maps that have them."""
        if all(isinstance(length, int) for length in size):
            return np.array(size, np.int64)
        return self.node("Concat", *map(self._symbolic, size), axis=0)

    def _symbolic(self, length: Any) -> str:
        """Returns a symbolic height or width as int64 [1].

        Raises:
          DeepLabError: no map has it, and it is not proportional to a size of the image.
        """
        if length in self._checked:
            return self._checked[length]
        if length in self._lengths:
            return self._length(*self._lengths[length])
        step, plus = self._step, self._plus
        for known, value in self._checked.items():
            # If the known size is k · step + plus, this one is k · part + plus.
            part = (length - plus) * step // (known - plus)
            if isinstance(part, int) and (known - plus) * part == (length - plus) * step:
                steps = self.node("Div", self.node("Add", value, -plus), step)
                return self.node("Add", self.node("Mul", steps, part), plus)
        raise DeepLabError(
            f"the size {length} cannot be computed in an ONNX file; give one, as in --size=513x513"
        )

    def _length(self, value: str, axis: int) -> str:
        """Returns a length of [N, C, H, W] as int64 [1]."""
        return self.node("Shape", value, start=axis, end=axis + 1)

    def check_sizes(self, image: str, shape: Sequence[Any], step: int, plus: int) -> None:
        """Makes the file fail on images of sizes for which the traced program is not valid.

        ONNX has no such constraint. The last resize uses the size computed here: that of the image,
        plus the element `remainder` of an array with one element, 0. ONNX Runtime reports an index
        out of bounds, together with the name of the node, which states the legal sizes.

        Args:
          image: value [N, C, H, W].
          shape: traced shape [N, H, W, C], with symbols for open sizes.
          step, plus: legal sizes are k · step + plus.
        """
        self._step, self._plus = step, plus
        for axis, side in ((1, "height"), (2, "width")):
            if isinstance(shape[axis], int):
                continue
            length = self._length(image, axis + 1)
            remainder = self.node("Mod", self.node("Add", length, -plus), step)
            name = f"{side}_must_be_a_multiple_of_{step}" + (f"_plus_{plus}" if plus else "")
            zero = self.node("Gather", np.zeros(1, np.int64), remainder, name=name)
            self._checked[shape[axis]] = self.node("Add", length, zero)

    def mean(self, inputs: Value) -> Value:
        return self.node("GlobalAveragePool", inputs)

    def mean_over_windows(self, inputs: Value, window: Pair, stride: Pair) -> Value:
        rows, columns = (
            self._window_matrix(self._length(inputs, axis), along, step)
            for axis, along, step in zip((2, 3), window, stride, strict=True)
        )
        tall = self.node("MatMul", rows, inputs)
        return self.node("MatMul", tall, self.node("Transpose", columns, perm=[1, 0]))

    def _window_matrix(self, length: str, window: int, stride: int) -> str:
        """Returns [windows, length], in each row 1 / window at the pixels of one window."""
        zero, one, most = (np.array(number, np.int64) for number in (0, 1, window))
        length = self.node("Squeeze", length)
        window = self.node("Min", length, most)
        stop = self.node("Add", self.node("Sub", length, window), one)
        first = self.node("Range", zero, stop, np.array(stride, np.int64))
        pixel = self.node("Range", zero, length, one)
        distance = self.node("Sub", pixel, self.node("Unsqueeze", first, one.reshape(1)))
        after, before = (
            self.node("GreaterOrEqual", distance, zero),
            self.node("Less", distance, window),
        )
        inside = self.node("And", after, before)
        return self.node("Div", *(self.cast(one, np.dtype(np.float32)) for one in (inside, window)))

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
    """Returns a constant for maps [N, H, W, C] as one for maps [N, C, H, W]."""
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 4:
        return value.transpose(0, 3, 1, 2)
    return value.reshape(-1, 1, 1) if value.ndim == 1 else value


# The first operator set in which Resize has `axes`, and the file format of its release.
OPSET, FORMAT = 18, 8


def write_onnx(program: Program, path: str | Path) -> None:
    """Writes an ONNX file.

    Args:
      program: program to export.
      path: path of the file, which is written atomically.

    Raises:
      DeepLabError: the network does not support dynamic sizes, or `translate` does not support
        one of its operations.
    """
    with open_sizes(program):
        traced = jax.make_jaxpr(program.function)(input_specification(program))
    writer = OnnxWriter()
    image = writer.node("Transpose", "image", perm=[0, 3, 1, 2])
    writer.check_sizes(image, traced.in_avals[0].shape, *program.step)
    result = translate(traced, image, writer)
    metadata = describe(program)
    name = metadata.output["name"]
    order = {} if program.options.argmax else {"perm": [0, 2, 3, 1]}
    final = helper.make_node("Transpose" if order else "Identity", [result], [name], **order)
    graph = helper.make_graph(
        [*writer.nodes, final],
        "deeplab",
        [_value_info("image", metadata.input)],
        [_value_info(name, metadata.output)],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="deeplab_jax",
        producer_version=metadata.version,
    )
    helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.checker.check_model(model)
    with replacing(Path(path)) as temporary:
        onnx.save(model, str(temporary))


def _value_info(name: str, description: dict[str, Any]) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(description["dtype"]))
    lengths = zip("NHWC", description["shape"], strict=False)
    shape = [symbol if length is None else length for symbol, length in lengths]
    return helper.make_tensor_value_info(name, kind, shape)
