"""Contents of a file of published weights, whatever its format."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class GraphFacts:
    """Facts of a file that holds the whole network and not its variables alone.

    Attributes:
      image_size: (H, W) in pixels that the graph takes; None where any will do.
      map_sizes: (h, w) of every convolution's output by its scope.
      rates: atrous rate (rows, columns) of every convolution by its scope.
      pooling_window: (rows, columns) of the average pooling, if there is one.
      align_corners: convention of the bilinear resizes; None where there is none.
      strides: pixels of the image to one of a convolution's output by its scope, where the sizes of
        the maps are not fixed.
    """

    image_size: Size | None
    map_sizes: Mapping[str, Size]
    rates: Mapping[str, Size]
    pooling_window: Size | None = None
    align_corners: bool | None = None
    strides: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def stride_of(self, scope: str) -> int | None:
        """Returns the pixels of the image to one of a convolution's output, if they are known."""
        if scope not in self.map_sizes or self.image_size is None:
            return self.strides.get(scope)
        image, found = self.image_size[0], self.map_sizes[scope][0]
        # Each halving rounds up.
        powers = (2**power for power in range(image.bit_length() + 1))
        return next((stride for stride in powers if -(-image // stride) == found), None)


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Named arrays as a reader finds them.

    A reader of graphs names the arrays of a convolution as TensorFlow's variables are named:
    `SCOPE/weights` [k, k, in, out] or `SCOPE/depthwise_weights` [k, k, channels, 1], and
    `SCOPE/biases`, into which batch normalisation may have been folded.

    Attributes:
      arrays: floating point, by name.
      layout: of kernels: `tensorflow` or `pytorch` [out, in, k, k].
      graph: facts of the network, where the file holds it.
      class_names: where the file states them.
      configuration: of the network, where one is published beside the arrays (`config.json`).
      ignored: names that were left out while reading, with the reason.
      stored: names in the file of arrays that go by another here.
    """

    arrays: Mapping[str, np.ndarray]
    layout: str
    graph: GraphFacts | None = None
    class_names: tuple[str, ...] | None = None
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    configuration: Mapping[str, Any] = dataclasses.field(default_factory=dict)
