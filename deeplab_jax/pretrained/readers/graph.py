"""Convolutions of a computation graph, and the names of their arrays."""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.weights import GraphFacts, PublishedWeights, Size

# Scope of the convolution after global average pooling.
IMAGE_POOLING = "image_pooling"
# Suffixes that converters append to the scope of a variable or of a fused operation.
ARRAY_SUFFIX = re.compile(r"/(depthwise_)?weights([/_:].*)?$")
OPERATION_SUFFIX = re.compile(r"(/BatchNorm[^/]*)?/[^/]*$")


@dataclasses.dataclass(frozen=True)
class GraphConvolution:
    """Convolution of a computation graph.

    Attributes:
      scope: name in TensorFlow, such as `MobilenetV2/Conv`.
      kernel: [k, k, in, out], or [k, k, channels, 1] for a depthwise convolution.
      bias: [out], or None.
      depthwise: whether the convolution is depthwise.
      map_size: (h, w) of the output, or None if the weights file does not state it.
      rate: atrous rate (along h, along w).
    """

    scope: str
    kernel: np.ndarray
    bias: np.ndarray | None
    depthwise: bool = False
    map_size: Size | None = (1, 1)
    rate: Size = (1, 1)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Kernel and bias of the convolution, by name of the TensorFlow variable."""
        kernel = "depthwise_weights" if self.depthwise else "weights"
        named = {f"{self.scope}/{kernel}": self.kernel}
        return named if self.bias is None else named | {f"{self.scope}/biases": self.bias}


def scope_of(name: str) -> str:
    """Returns the scope of a convolution, from the name of its weights or its operation.

    Converters join the names of fused operations with semicolons, and append suffixes such as
    `/weights` or `/BatchNorm/FusedBatchNorm` to the names. The scope is one of the joined names,
    without its suffix: the first name with a suffix of weights; if there is none, the first name
    with a slash; if there is none, the first name.
    """
    parts = name.split(";")
    weights = next((part for part in parts if ARRAY_SUFFIX.search(part)), None)
    if weights is not None:
        return ARRAY_SUFFIX.sub("", weights)
    # The names of fused activations have no scope.
    operation = next((part for part in parts if "/" in part), parts[0])
    return OPERATION_SUFFIX.sub("", operation)


def published_graph(
    convolutions: Iterable[GraphConvolution],
    image_size: Size | None,
    *,
    pooling_window: Size | None = None,
    align_corners: bool | None = None,
) -> PublishedWeights:
    """Builds a `PublishedWeights` from the convolutions of a computation graph.

    Args:
      convolutions: all convolutions of the network.
      image_size: (H, W) in pixels that the graph requires; None: any size.
      pooling_window: height and width of the windows of the average pooling; None: there is none.
      align_corners: whether bilinear resizes align corners; None: there are no resizes.

    Raises:
      DeepLabError: two convolutions have the same name, or there is no convolution.
    """
    arrays: dict[str, np.ndarray] = {}
    convolutions = list(convolutions)
    if not convolutions:
        raise DeepLabError("the file contains no convolution, so it is not a supported network")
    for convolution in convolutions:
        if arrays.keys() & convolution.arrays.keys():
            raise DeepLabError(
                f"the file contains two convolutions with the name {convolution.scope}, so their "
                "weights cannot be distinguished"
            )
        arrays |= convolution.arrays
    facts = GraphFacts(
        image_size=image_size,
        map_sizes={c.scope: c.map_size for c in convolutions if c.map_size is not None},
        rates={c.scope: c.rate for c in convolutions},
        pooling_window=pooling_window,
        align_corners=align_corners,
    )
    return PublishedWeights(arrays, "tensorflow", facts)
