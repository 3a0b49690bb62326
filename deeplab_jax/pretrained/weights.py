"""Contents of a weights file, independent of the file format."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class GraphFacts:
    """Facts about the computation graph, from a file that contains the whole network.

    The scope of a convolution is its name in the graph, such as `MobilenetV2/Conv`.

    Attributes:
      image_size: (H, W) in pixels that the graph requires, or None for any size.
      map_sizes: output size (h, w) of each convolution by scope.
      rates: atrous rate (along h, along w) of each convolution by scope.
      pooling_window: height and width of the windows of the average pooling, or None if there is no
        average pooling.
      align_corners: whether bilinear resizes align corners, or None if there are no resizes.
      strides: ratio of the image size to the output size of each convolution by scope, for graphs
        without fixed output sizes.
    """

    image_size: Size | None
    map_sizes: Mapping[str, Size]
    rates: Mapping[str, Size]
    pooling_window: Size | None = None
    align_corners: bool | None = None
    strides: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def stride_of(self, scope: str) -> int | None:
        """Returns the ratio of the image size to a convolution's output size; None if unknown."""
        if scope not in self.map_sizes or self.image_size is None:
            return self.strides.get(scope)
        image, found = self.image_size[0], self.map_sizes[scope][0]
        # Each convolution with stride 2 halves the size and rounds up.
        powers = (2**power for power in range(image.bit_length() + 1))
        return next((stride for stride in powers if -(-image // stride) == found), None)


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Named arrays of a weights file.

    For a file with a computation graph, the arrays of each convolution have the names of TensorFlow
    variables: `SCOPE/weights` [k, k, in, out] or `SCOPE/depthwise_weights` [k, k, channels, 1], and
    `SCOPE/biases`. Batch normalization may be folded into them.

    Attributes:
      arrays: floating-point arrays by name.
      layout: layout of kernels: `tensorflow`, or `pytorch` [out, in, k, k].
      graph: facts about the computation graph, if the file contains it.
      class_names: names of the classes, if the file contains them.
      configuration: content of the `config.json` beside the file, if there is one.
      ignored: {name: reason} for each array that was not read.
      stored: {new name: name in the file} for each array that was renamed.
      wrappers: prefixes that were removed from the names of all arrays. The names have a prefix
        such as `base.` if the network is a submodule of another module.
    """

    arrays: Mapping[str, np.ndarray]
    layout: str
    graph: GraphFacts | None = None
    class_names: tuple[str, ...] | None = None
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    configuration: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
