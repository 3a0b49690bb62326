"""Reader of TensorFlow frozen graphs (`.pb`)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_tensorflow
from deeplab_jax.pretrained.readers.graph import IMAGE_POOLING, OPERATION_SUFFIX, scope_of
from deeplab_jax.pretrained.weights import GraphFacts, PublishedWeights, Size

# Operations that do not change the values of their first input, except their layout.
TRANSPARENT = (
    *("Identity", "StopGradient", "FakeQuantWithMinMaxVars", "CheckNumerics"),
    *("FakeQuantWithMinMaxArgs", "BatchToSpaceND", "Enter"),
)
STRIDED = ("Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool")
RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor")
# Maximum number of operations between a convolution and the resize of its output.
FAR = 12


class Nodes(dict[str, Any]):
    """Nodes of a graph by name."""

    def __init__(self, nodes: Iterable[Any]) -> None:
        super().__init__({node.name: node for node in nodes})
        self._consumers: dict[str, list[Any]] = {}
        for node in self.values():
            for reference in node.input:
                self._consumers.setdefault(_name(reference), []).append(node)

    def constant(self, reference: str) -> Any | None:
        """Returns the constant that an input of a node refers to, or None.

        Operations between the constant and the node, such as Identity, are skipped.

        Args:
          reference: element of the list `input` of the node.
        """
        node = self._behind(reference)
        return node if node is not None and node.op == "Const" else None

    def source(self, node: Any) -> Any | None:
        """Returns the node that computes the first input of `node`, or None.

        Operations between the two nodes, such as Identity, are skipped.
        """
        return self._behind(node.input[0])

    def next_of(self, node: Any, operations: Sequence[str], far: bool = False) -> Any | None:
        """Returns the nearest node after `node` whose operation is in `operations`, or None.

        Args:
          node: node where the search starts.
          operations: operations to search for.
          far: True: any operations may lie between the two nodes; False: only operations that keep
            the values of their input.
        """
        front, seen = [node], {node.name}
        for _ in range(FAR):
            after = [user for one in front for user in self._consumers.get(one.name, ())]
            found = next((user for user in after if user.op in operations), None)
            if found is not None:
                return found
            front = [
                user for user in after if user.name not in seen and (far or user.op in TRANSPARENT)
            ]
            seen.update(user.name for user in front)
        return None

    def image_size(self) -> Size | None:
        """Returns (H, W) of the images if the input of the graph has a fixed size, else None."""
        for node in self.values():
            sides = [dim.size for dim in node.attr["shape"].shape.dim]
            if node.op == "Placeholder" and len(sides) == 4 and min(sides[1:3]) > 0:
                return tuple(sides[1:3])
        return None

    def strides(self) -> dict[str, int]:
        """Returns {name of a node: ratio of the image size to the output size of the node}.

        The nodes are the convolutions and poolings, and all nodes that lie between the image and
        one of these. The output size of a resize is not read, so its ratio is assumed to be 1. If
        the inputs of a node have different ratios, the largest one is used. The search is
        depth-first without recursion, because graphs are deeper than Python's stack and can have
        cycles.
        """
        known: dict[str, int] = {}
        opened: set[str] = set()
        stack = [name for name, node in self.items() if node.op in STRIDED]
        while stack:
            name = stack[-1]
            before = [_name(reference) for reference in self[name].input]
            waiting = [one for one in before if one in self and one not in opened]
            if name not in opened and waiting:
                opened.add(name)
                stack += waiting
                continue
            stack.pop()
            opened.add(name)
            if name not in known:
                known[name] = self._stride(self[name], [known.get(one, 0) for one in before])
        return {name: stride for name, stride in known.items() if stride}

    def _stride(self, node: Any, before: list[int]) -> int:
        """Returns the ratio of the image size to the output size of a node; 1 for a resize.

        Args:
          node: node of the graph.
          before: for each input of the node, ratio of the image size to the size of the input; 0
            if the input does not depend on the image.

        Returns:
          The ratio, or 0 if the output does not depend on the image.
        """
        longest = 1 if node.op == "Placeholder" else max(before, default=0)
        if longest and node.op in RESIZES:
            return 1
        strided = longest and node.op in STRIDED
        return longest * (node.attr["strides"].list.i[1] if strided else 1)

    def _behind(self, reference: str) -> Any | None:
        node, seen = self.get(_name(reference)), set()
        while node is not None and node.op in TRANSPARENT and node.input and node.name not in seen:
            seen.add(node.name)
            node = self.get(_name(node.input[0]))
        return node


def _name(reference: str) -> str:
    """Returns `name` for a reference such as `name:1` or `^name` (a control dependency)."""
    return reference.removeprefix("^").partition(":")[0]


# Name of the graph in the directory of a SavedModel.
SAVED_MODEL = "saved_model.pb"
VARIABLE = re.compile(r"/(weights|depthwise_weights|biases|gamma|beta|moving_(mean|variance))$")
CONVOLUTIONS = {"Conv2D": "weights", "DepthwiseConv2dNative": "depthwise_weights"}
NORMALIZATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
# Inputs of a batch normalization after the feature map.
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
ADDITIONS = ("BiasAdd", "Add", "AddV2")


def read_frozen_graph(path: Path) -> PublishedWeights:
    """Reads the variables of a frozen graph, and facts about its convolutions.

    Raises:
      DeepLabError: TensorFlow is not installed, or the file is not a frozen graph with
        convolutions.
    """
    if path.name == SAVED_MODEL:
        raise DeepLabError(
            "the file belongs to a SavedModel, which is not supported; give a frozen graph or the "
            "checkpoint of the training"
        )
    tensorflow = import_tensorflow("tensorflow", "a TensorFlow file")
    definition = tensorflow.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    return _Graph(Nodes(definition.node), tensorflow.make_ndarray).published()


class _Graph:
    """Frozen graph from which the weights and the `GraphFacts` are read."""

    def __init__(self, nodes: Nodes, make_array: Any) -> None:
        self.nodes = nodes
        self.make_array = make_array
        self.convolutions = {
            self._scope(node): node for node in nodes.values() if node.op in CONVOLUTIONS
        }
        if not self.convolutions:
            raise DeepLabError("the file contains no convolution, so it is not a supported network")

    def published(self) -> PublishedWeights:
        strides = self.nodes.strides()
        known = {
            scope: strides[node.name]
            for scope, node in self.convolutions.items()
            if node.name in strides
        }
        facts = GraphFacts(
            image_size=self._image_size(known),
            map_sizes={},
            rates={scope: self._rate(node) for scope, node in self.convolutions.items()},
            pooling_window=self._pooling_window(),
            align_corners=self._align_corners(),
            strides=known,
        )
        return PublishedWeights(dict(self._arrays()), "tensorflow", facts)

    def _scope(self, node: Any) -> str:
        kernel = self.nodes.constant(node.input[1])
        if kernel is None:
            raise DeepLabError(f"the weights of {node.name} are not constants; freeze the graph")
        return scope_of(kernel.name if VARIABLE.search(kernel.name) else node.name)

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, value) of each variable; a frozen graph stores variables as constants."""
        for node in self.nodes.values():
            if node.op == "Const" and VARIABLE.search(node.name):
                yield node.name, self._value(node)
            if node.op in NORMALIZATIONS:
                yield from self._renamed(OPERATION_SUFFIX.sub("", node.name), node, STATISTICS)
        for scope, node in self.convolutions.items():
            yield from self._renamed(scope, node, (CONVOLUTIONS[node.op],))
            addition = self.nodes.next_of(node, ADDITIONS)
            if addition is not None:
                yield from self._renamed(scope, addition, ("biases",))

    def _renamed(
        self, scope: str, node: Any, leaves: tuple[str, ...]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (SCOPE/LEAF, value) of each constant input of a node.

        A constant that is named like a variable, such as `conv1/weights`, is skipped, because
        `_arrays` yields it with that name.

        Args:
          scope: scope of the names.
          node: node of the graph. Its first input, the feature map, is skipped, too.
          leaves: last parts of the names, one for each input after the first one.
        """
        for reference, leaf in zip(node.input[1:], leaves, strict=False):
            constant = self.nodes.constant(reference)
            if constant is not None and not VARIABLE.search(constant.name):
                yield f"{scope}/{leaf}", self._value(constant)

    def _value(self, node: Any) -> np.ndarray:
        return np.asarray(self.make_array(node.attr["value"].tensor), np.float32)

    def _rate(self, node: Any) -> Size:
        dilations = node.attr["dilations"].list.i
        source = self.nodes.source(node)
        if source is not None and source.op == "SpaceToBatchND":
            block = self.nodes.constant(source.input[1])
            dilations = (1, *self._value(block), 1) if block is not None else dilations
        return (int(dilations[1]), int(dilations[2])) if len(dilations) == 4 else (1, 1)

    def _pooling_window(self) -> Size | None:
        node = self.convolutions.get(IMAGE_POOLING)
        source = None if node is None else self.nodes.source(node)
        if source is None or source.op != "AvgPool":
            return None
        return tuple(source.attr["ksize"].list.i[1:3])

    def _image_size(self, strides: Mapping[str, int]) -> Size | None:
        """Returns (H, W) in pixels to which the graph pads images; None if it is not known.

        (H, W) is computed from the size to which the graph upsamples the output of image pooling.
        If the graph does not contain that size, the result is `Nodes.image_size`.

        Args:
          strides: {scope of a convolution: ratio of the image size to the output size of the
            convolution}.
        """
        node = self.convolutions.get(IMAGE_POOLING)
        resize = None if node is None else self.nodes.next_of(node, ("ResizeBilinear",), far=True)
        size = None if resize is None else self.nodes.constant(resize.input[1])
        if size is not None and "aspp0" in strides:
            height, width = self._value(size).tolist()
            stride = strides["aspp0"]
            return int(height - 1) * stride + 1, int(width - 1) * stride + 1
        return self.nodes.image_size()

    def _align_corners(self) -> bool | None:
        resizes = [node for node in self.nodes.values() if node.op == "ResizeBilinear"]
        return resizes[-1].attr["align_corners"].b if resizes else None
