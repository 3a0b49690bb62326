"""The nodes of a TensorFlow graph: what flows where, and how far each map is reduced."""

from collections.abc import Iterable, Sequence
from typing import Any

from deeplab_jax.pretrained.published import Size

# Operations that hand on the values of their first input, if arranged otherwise.
TRANSPARENT = (
    *("Identity", "StopGradient", "FakeQuantWithMinMaxVars", "CheckNumerics"),
    *("FakeQuantWithMinMaxArgs", "BatchToSpaceND", "Enter"),
)
STRIDED = ("Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool")
RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor")
# Operations between a convolution and the resize of what it gives.
FAR = 12


class Nodes(dict):
    """Nodes by name."""

    def __init__(self, nodes: Iterable[Any]) -> None:
        super().__init__({node.name: node for node in nodes})
        self._consumers: dict[str, list[Any]] = {}
        for node in self.values():
            for reference in node.input:
                self._consumers.setdefault(_name(reference), []).append(node)

    def constant(self, reference: str) -> Any | None:
        """Returns the constant that a reference comes to; None if it is computed."""
        node = self._behind(reference)
        return node if node is not None and node.op == "Const" else None

    def source(self, node: Any) -> Any | None:
        """Returns what gives a node's first input."""
        return self._behind(node.input[0])

    def next_of(self, node: Any, operations: Sequence[str], far: bool = False) -> Any | None:
        """Returns the nearest of some operations after a node.

        Args:
          node: where to begin.
          operations: that are looked for.
          far: whether others than transparent ones may come before it.
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
        """Returns the size of the images, where the graph takes only one."""
        for node in self.values():
            sides = [dim.size for dim in node.attr["shape"].shape.dim]
            if node.op == "Placeholder" and len(sides) == 4 and min(sides[1:3]) > 0:
                return tuple(sides[1:3])
        return None

    def strides(self) -> dict[str, int]:
        """Returns the pixels of the image to one of every map, by node; resizes begin anew.

        Depth first without recursion: graphs are deeper than Python's stack, and may have loops.
        """
        known: dict[str, int] = {}
        done: set[str] = set()
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
            if name not in done:
                done.add(name)
                stride = self._stride(self[name], [known[one] for one in before if one in known])
                if stride:
                    known[name] = stride
        return known

    def _stride(self, node: Any, before: list[int]) -> int:
        if node.op == "Placeholder":
            return 1
        if not before:
            return 0
        if node.op in RESIZES:
            return 1
        own = node.attr["strides"].list.i[1] if node.op in STRIDED else 1
        return max(before) * own

    def _behind(self, reference: str) -> Any | None:
        node, seen = self.get(_name(reference)), set()
        while node is not None and node.op in TRANSPARENT and node.input and node.name not in seen:
            seen.add(node.name)
            node = self.get(_name(node.input[0]))
        return node


def _name(reference: str) -> str:
    """Returns the node of an input such as `name:1`, or `^name` of one that only comes first."""
    return reference.removeprefix("^").partition(":")[0]
