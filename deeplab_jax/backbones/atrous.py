"""How strides become atrous rates, and which feature maps a backbone names."""

from collections.abc import Sequence
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError


class Feature(NamedTuple):
    """One of a backbone's endpoints.

    Attributes:
      name: its key among the endpoints.
      channels: how many it has at depth multiplier 1.
      stride: pixels of the image to one of the map, before any stride is turned into a rate.
    """

    name: str
    channels: int
    stride: int


class Unit(NamedTuple):
    """One strided place of a network: its stride and the rate of its 3×3 convolution."""

    stride: int
    rate: int


def strides_to_rates(strides: Sequence[int], output_stride: int, name: str) -> list[Unit]:
    """Returns each unit's stride and atrous rate so that the last map has `output_stride`.

    Walks the units: once the running stride has reached `output_stride`, a unit keeps its map's
    size, runs at the current rate, and only after it the rate grows by the stride it lost. So the
    unit that lost its stride still uses the old rate (DeepLab v3, section 3.1, as released).

    Args:
      strides: nominal stride of every unit, in order.
      output_stride: pixels of the image to one of the last map.
      name: of the network, for the error.

    Raises:
      DeepLabError: the strides cannot reach `output_stride` exactly.
    """
    units, current_stride, rate = [], 1, 1
    for stride in strides:
        if current_stride == output_stride:
            units.append(Unit(1, rate))
            rate *= stride
        else:
            units.append(Unit(stride, 1))
            current_stride *= stride
    if current_stride != output_stride:
        legal = sorted({s for s in _running_strides(strides) if s >= 4})
        raise DeepLabError(
            f"{name} cannot have output stride {output_stride}; legal: {', '.join(map(str, legal))}"
        )
    return units


def _running_strides(strides: Sequence[int]) -> list[int]:
    running, product = [], 1
    for stride in strides:
        product *= stride
        running.append(product)
    return running
