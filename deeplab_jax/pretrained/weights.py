"""Contents of a file of published weights, independent of its format."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class GraphFacts:
    """Facts about the graph, from a file that holds a whole network.

    Attributes:
      image_size: (H, W) in pixels that the graph requires, or None for any size.
      map_sizes: (h, w) of the output of every convolution by scope.
      rates: atrous rate (rows, columns) of every convolution by scope.
      pooling_window: (rows, columns) of the average pooling, or None without one.
      align_corners: convention of the bilinear resizes, or None without any.
      strides: stride of the output of every convolution relative to the image by scope, where the
        sizes of the maps are not fixed.
    """

    image_size: Size | None
    map_sizes: Mapping[str, Size]
    rates: Mapping[str, Size]
    pooling_window: Size | None = None
    align_corners: bool | None = None
    strides: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def stride_of(self, scope: str) -> int | None:
        """Returns the stride of a convolution's output relative to the image, if it is known."""
        if scope not in self.map_sizes or self.image_size is None:
            return self.strides.get(scope)
        image, found = self.image_size[0], self.map_sizes[scope][0]
        # Every stride of 2 rounds up.
        powers = (2**power for power in range(image.bit_length() + 1))
        return next((stride for stride in powers if -(-image // stride) == found), None)


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Named arrays of a file.

    A reader of graphs names the arrays of a convolution like TensorFlow's variables:
    `SCOPE/weights` [k, k, in, out] or `SCOPE/depthwise_weights` [k, k, channels, 1], and
    `SCOPE/biases`, into which batch normalization may be folded.

    Attributes:
      arrays: floating-point arrays by name.
      layout: layout of kernels: `tensorflow`, or `pytorch` [out, in, k, k].
      graph: facts about the graph, if the file holds it.
      class_names: names of the classes, if the file states them.
      configuration: configuration published beside the arrays (`config.json`), if there is one.
      ignored: names that the reader left out, with the reason.
      stored: names in the file of arrays that were renamed.
    """

    arrays: Mapping[str, np.ndarray]
    layout: str
    graph: GraphFacts | None = None
    class_names: tuple[str, ...] | None = None
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    configuration: Mapping[str, Any] = dataclasses.field(default_factory=dict)
