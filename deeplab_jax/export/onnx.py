"""ONNX export: translates the traced program of a network to ONNX operations."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import KEY, describe
from deeplab_jax.export.program import Program, input_specification, open_sizes
from deeplab_jax.export.translation import Corner, Geometry, Pair, Value, channels_first, translate
from deeplab_jax.files import replacing
from deeplab_jax.lazy import import_extra
from deeplab_jax.ops import Padding

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

onnx = import_extra("onnx", "onnx", "ONNX export")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

HALF = np.dtype(np.float16)
# ONNX operations whose result has another dtype than their first input.
CHANGES_DTYPE = ("ArgMax", "Cast", "Shape")


class OnnxWriter:
    """Writes a program as an ONNX graph on feature maps [N, C, H, W].

    Methods represent a tensor of the graph by its name, and a constant by its name or an array.

    Attributes:
      nodes: nodes in order of execution.
      constants: weights and other constants.
      dtype: dtype of convolutions, weights and feature maps, float32 or float16. Averages, norms,
        and normalizations of the image or of channels are always computed in float32.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.dtype = np.dtype(dtype)
        self._names: dict[bytes, str] = {}
        # Names of float16 values.
        self._halves: set[str] = set()
        # Result of each Relu → input of that Relu.
        self._rectified: dict[str, str] = {}
        # Name of each map → its traced shape [N, H, W, C].
        self._shapes: dict[str, tuple[Any, ...]] = {}
        # Symbolic height or width → (value with this size, axis of [N, C, H, W]).
        self._lengths: dict[Any, tuple[str, int]] = {}
        # Symbolic height or width of the image → value int64 [1] that the graph checks at run time.
        # Legal heights and widths are k · step + plus.
        self._checked: dict[Any, str] = {}
        self._step, self._plus = 1, 0

    def node(self, kind: str, *inputs: Value, name: str = "", **attributes: Any) -> str:
        """Adds an ONNX operation of type `kind`, such as Conv; returns the name of its result.

        Inputs that are arrays become constants, and integers become constants int64 [1].
        """
        arrays = [np.array([i], np.int64) if isinstance(i, int) else i for i in inputs]
        operands = [self.constant(i) if isinstance(i, np.ndarray) else i for i in arrays]
        result = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, operands, [result], name=name or result, **attributes)
        )
        if operands[0] in self._halves and kind not in CHANGES_DTYPE:
            self._halves.add(result)
        return result

    def constant(self, array: np.ndarray) -> str:
        """Returns the name of the constant equal to `array`; adds the constant if it is missing."""
        key = b"%s %s " % (str(array.dtype).encode(), str(array.shape).encode()) + array.tobytes()
        if key not in self._names:
            self._names[key] = f"constant_{len(self.constants)}"
            # ONNX accepts only contiguous arrays.
            contiguous = np.ascontiguousarray(array)
            self.constants.append(numpy_helper.from_array(contiguous, self._names[key]))
        return self._names[key]

    def half(self, value: Value) -> Value:
        """Converts `value` to float16; it is a constant array, or the name of a tensor.

        Raises:
          DeepLabError: the constant is too large for float16.
        """
        if isinstance(value, str):
            return value if value in self._halves else self.cast(value, HALF)
        if np.abs(value).max(initial=0) > np.finfo(HALF).max:
            raise DeepLabError(
                f"a weight of {np.abs(value).max():.3g} exceeds {np.finfo(HALF).max}, the maximum "
                "of float16; export with --dtype=float32"
            )
        return value.astype(HALF)

    def single(self, value: str) -> str:
        """Converts the tensor with the name `value` to float32; returns the name of the result."""
        return self.cast(value, np.dtype(np.float32)) if value in self._halves else value

    def _alike(self, *values: Value) -> tuple[Value, ...]:
        """Converts all `values` to float16 if one of them is a float16 tensor."""
        if any(isinstance(value, str) and value in self._halves for value in values):
            return tuple(map(self.half, values))
        return values

    def convolution(
        self, inputs: Value, kernel: np.ndarray, bias: np.ndarray | None, geometry: Geometry
    ) -> Value:
        operands = [inputs, kernel.transpose(3, 2, 0, 1), *([] if bias is None else [bias])]
        if self.dtype == HALF:
            operands = list(map(self.half, operands))
        stride, padding, rate, groups = geometry
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
            result = self.node("Relu", left)
            self._rectified[result] = left
            return result
        is_scalar = isinstance(right, np.ndarray) and right.size == 1
        if name == "min" and is_scalar and isinstance(left, str) and left in self._rectified:
            # As one Clip operation, ReLU6 is fused into the preceding convolution by runtimes.
            before = self._rectified[left]
            dtype = HALF if before in self._halves else right.dtype
            limits = np.zeros((), dtype), right.reshape(()).astype(dtype)
            return self.node("Clip", before, *limits)
        left, right = self._alike(channels_first(left), channels_first(right))
        return self.node(name.capitalize(), left, right)

    def resize(self, inputs: Value, like: Sequence[Any], align_corners: bool) -> Value:
        # OpenCV 5.0 reads outside of maps with one row or one column when it resizes them. Their
        # rows or columns are repeated instead.
        lengths = [
            after if before == 1 else 1
            for before, after in zip(self._shapes[inputs][1:3], like[1:3], strict=True)
        ]
        if lengths != [1, 1]:
            inputs = self.node("Expand", inputs, self._integers([1, 1, *lengths]))
            if lengths == list(like[1:3]):
                return inputs
        mode = "align_corners" if align_corners else "half_pixel"
        options = {"mode": "linear", "coordinate_transformation_mode": mode}
        return self.node("Resize", inputs, "", "", self._size(inputs, like), **options)

    def _size(self, inputs: Value, like: Sequence[Any]) -> Value:
        """Returns the shape (N, C, H, W) of a resized map: an array if fixed, else a tensor's name.

        Args:
          inputs: map to resize, [N, C, h, w].
          like: traced shape of the result, [N, H, W, C], with symbols for variable sizes.
        """
        batch, height, width, channels = like
        if all(isinstance(length, int) for length in like):
            return np.array([batch, channels, height, width], np.int64)
        outer = self.node("Gather", self.node("Shape", inputs), np.array([0, 1]), axis=0)
        return self.node("Concat", outer, self._integers([height, width]), axis=0)

    def _integers(self, lengths: Sequence[Any]) -> Value:
        """Returns K axis lengths, int64 [K]: an array if all are fixed, else a tensor's name."""
        if all(isinstance(length, int) for length in lengths):
            return np.array(lengths, np.int64)
        return self.node("Concat", *map(self._symbolic, lengths), axis=0)

    def _symbolic(self, length: Any) -> str:
        """Returns the name of a tensor int64 [1] with the value of a height or width at run time.

        Args:
          length: height or width in the traced program, integer or symbolic.

        Raises:
          DeepLabError: no earlier map has this height or width, and it cannot be computed from the
            image size.
        """
        if isinstance(length, int):
            return self.constant(np.array([length], np.int64))
        if length in self._checked:
            return self._checked[length]
        if length in self._lengths:
            return self._length(*self._lengths[length])
        step, plus = self._step, self._plus
        for known, value in self._checked.items():
            # If the known length is k · step + plus, this length is k · part + plus.
            part = (length - plus) * step // (known - plus)
            if isinstance(part, int) and (known - plus) * part == (length - plus) * step:
                steps = self.node("Div", self.node("Add", value, -plus), step)
                return self.node("Add", self.node("Mul", steps, part), plus)
        raise DeepLabError(
            "this network does not support variable image sizes in ONNX: the height or width "
            f"{length} of a feature map is unknown; export with a fixed size, as in --size=513x513"
        )

    def _length(self, value: str, axis: int) -> str:
        """Returns the name of an int64 tensor [1] with the length of an axis of `value`."""
        return self.node("Gather", self.node("Shape", value), axis)

    def check_sizes(self, image: str, shape: Sequence[Any], step: int, plus: int) -> None:
        """Adds a check to the graph: illegal image sizes are an error at run time.

        ONNX has no operation for checks. The graph therefore gathers an element from the array [0],
        with (size − plus) mod step as index. For an illegal size, this index is out of bounds, and
        ONNX Runtime reports the name of the node, which states the legal sizes. The gathered 0 is
        added to the size, which later resize operations use. Without this use, the node would be
        removed from the graph.

        Args:
          image: name of the image, [N, C, H, W].
          shape: traced shape of the image, [N, H, W, C], with symbols for variable sizes.
          step, plus: legal heights and widths are k · step + plus, in pixels.
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
        return self.node("GlobalAveragePool", self.single(inputs))

    def mean_over_windows(self, inputs: Value, window: Pair, stride: Pair) -> Value:
        inputs = self.single(inputs)
        rows, columns = (
            self._window_matrix(self._length(inputs, axis), along, step)
            for axis, along, step in zip((2, 3), window, stride, strict=True)
        )
        tall = self.node("MatMul", rows, inputs)
        return self.node("MatMul", tall, self.node("Transpose", columns, perm=[1, 0]))

    def _window_matrix(self, length: str, window: int, stride: int) -> str:
        """Returns a matrix [number of windows, length] that averages over windows along an axis.

        Each row is 1 / window at the pixels of one window, and 0 elsewhere. A window that is larger
        than the map is clipped to it.

        Args:
          length: name of a tensor int64 [1] with the length of the axis.
          window: size of the windows along the axis, in pixels.
          stride: distance between the starts of successive windows, in pixels.
        """
        zero, one, most = (np.array(number, np.int64) for number in (0, 1, window))
        length = self.node("Squeeze", length)
        width = self.node("Min", length, most)
        stop = self.node("Add", self.node("Sub", length, width), one)
        first = self.node("Range", zero, stop, np.array(stride, np.int64))
        pixel = self.node("Range", zero, length, one)
        distance = self.node("Sub", pixel, self.node("Unsqueeze", first, one.reshape(1)))
        after = self.node("GreaterOrEqual", distance, zero)
        inside = self.node("And", after, self.node("Less", distance, width))
        return self.node("Div", *(self.cast(one, np.dtype(np.float32)) for one in (inside, width)))

    def pool(self, kind: str, inputs: Value, window: Pair, stride: Pair, padding: Padding) -> Value:
        options: dict[str, Any] = {"kernel_shape": window, "strides": stride}
        if kind == "max":
            return self.node("MaxPool", inputs, pads=_pads(padding), **options)
        if kind == "mean":
            return self.node("AveragePool", self.single(inputs), pads=_pads(padding), **options)
        inputs = self.single(inputs)
        if any(map(any, padding)):
            # OpenCV 4.10 ignores `count_include_pad`.
            top, left, bottom, right = _pads(padding)
            edges = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            inputs = self.node("Pad", inputs, edges)
        means = self.node("AveragePool", inputs, **options)
        return self.node("Mul", means, np.float32(np.prod(window)).reshape(1))

    def sigmoid(self, inputs: Value) -> Value:
        return self.node("Sigmoid", inputs)

    def gelu(self, inputs: Value) -> Value:
        half, one, root = self._scalars(inputs, 0.5, 1.0, 0.5**0.5)
        distribution = self.node("Add", self.node("Erf", self.node("Mul", inputs, root)), one)
        return self.node("Mul", self.node("Mul", inputs, half), distribution)

    def _scalars(self, like: str, *numbers: float) -> list[np.ndarray]:
        dtype = HALF if like in self._halves else np.float32
        return [np.full(1, number, dtype) for number in numbers]

    def standardize_channels(self, inputs: Value, epsilon: float) -> Value:
        # The squares may exceed the maximum of float16.
        inputs = self.single(inputs)
        centered = self.node("Sub", inputs, self.node("ReduceMean", inputs, axes=[1]))
        squares = self.node("Mul", centered, centered)
        variance = self.node("ReduceMean", squares, axes=[1])
        deviation = self.node("Sqrt", self.node("Add", variance, np.full(1, epsilon, np.float32)))
        return self.node("Div", centered, deviation)

    def relative_norms(self, inputs: Value, epsilon: float) -> Value:
        norms = self.node("ReduceL2", self.single(inputs), axes=[2, 3])
        mean = self.node("ReduceMean", norms, axes=[1])
        return self.node("Div", norms, self.node("Add", mean, np.full(1, epsilon, np.float32)))

    def slice(self, inputs: Value, start: Corner, stop: Corner, stride: Pair) -> Value:
        bounds = map(self._integers, (start, stop))
        return self.node("Slice", inputs, *bounds, np.array([2, 3]), np.array(stride))

    def concatenate(self, inputs: Sequence[Value], axis: int) -> Value:
        # Axes 1, 2, 3 of [N, H, W, C] are axes 2, 3, 1 of [N, C, H, W].
        return self.node("Concat", *self._alike(*inputs), axis=axis % 3 + 1)

    def reverse_channels(self, inputs: Value) -> Value:
        return self.node("Gather", inputs, np.array([2, 1, 0]), axis=1)

    def cast(self, inputs: Value, dtype: np.dtype) -> Value:
        result = self.node("Cast", inputs, to=helper.np_dtype_to_tensor_dtype(dtype))
        if dtype == HALF:
            self._halves.add(result)
        return result

    def argmax(self, inputs: Value) -> Value:
        index = self.node("ArgMax", inputs, axis=1, keepdims=0)
        return self.cast(index, np.dtype(np.int32))

    def seen(self, value: Value, shape: Sequence[Any]) -> None:
        if len(shape) == 4:
            self._shapes[value] = tuple(shape)
            for axis in (1, 2):
                if not isinstance(shape[axis], int):
                    self._lengths.setdefault(shape[axis], (value, axis + 1))


def _needed(nodes: Sequence[Any], result: str) -> list[Any]:
    """Returns the nodes on which the tensor named `result` depends, in order of execution."""
    needed, kept = {result}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _pads(padding: Padding) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


# Version of the operator set, and of the file format that was released with it. OpenCV does not
# support the attributes `axes` of Resize and `start` of Shape, which later operator sets have.
OPSET, FORMAT = 13, 7


def write_onnx(program: Program, path: str | Path) -> None:
    """Writes a program as an ONNX file.

    Args:
      program: program to export.
      path: path of the file, which is written atomically.

    Raises:
      DeepLabError: the network does not support variable sizes, ONNX cannot express one of its
        operations, or a weight is too large for float16.
    """
    with open_sizes(program):
        traced = jax.make_jaxpr(program.function)(input_specification(program))
    writer = OnnxWriter(program.options.dtype)
    image = writer.node("Transpose", "image", perm=[0, 3, 1, 2])
    writer.check_sizes(image, traced.in_avals[0].shape, *program.step)
    result = writer.single(translate(traced, image, writer))
    metadata = describe(program)
    name = metadata.output["name"]
    order = {} if program.options.argmax else {"perm": [0, 2, 3, 1]}
    final = helper.make_node("Transpose" if order else "Identity", [result], [name], **order)
    graph = helper.make_graph(
        [*_needed(writer.nodes, result), final],
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
