"""Conversion of strides to atrous rates for a given output stride (DeepLab v3, section 3.1)."""

from collections.abc import Sequence
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError


class Feature(NamedTuple):
    """Endpoint (named intermediate feature map) of a backbone.

    Attributes:
      name: key in the dict of endpoints.
      channels: number of channels at depth multiplier 1.
      stride: ratio of image size to map size if no stride is converted to a rate.
    """

    name: str
    channels: int
    stride: int


class Unit(NamedTuple):
    """Stride and atrous rate of a convolution, or of a unit of several convolutions."""

    stride: int
    rate: int


def strides_to_rates(
    strides: Sequence[int], output_stride: int, name: str, *, same_unit: bool = False
) -> list[Unit]:
    """Returns the stride and atrous rate of each unit for an output stride.

    Units keep their strides until the product of the strides is `output_stride`. All later units
    have stride 1. Each stride that is dropped multiplies the rates of the units after its own unit
    (DeepLab v3, section 3.1, as in the released code).

    Args:
      strides: nominal stride of every unit, in order.
      output_stride: ratio of image size to the size of the last feature map.
      name: name of the network, for the error message.
      same_unit: whether a dropped stride also multiplies the rate of its own unit.

    Raises:
      DeepLabError: `output_stride` is not the product of the first n strides for any n; the message
        lists the legal output strides.
    """
    units, current_stride, rate = [], 1, 1
    for stride in strides:
        if current_stride == output_stride:
            units.append(Unit(1, rate * stride if same_unit else rate))
            rate *= stride
        else:
            units.append(Unit(stride, 1))
            current_stride *= stride
    if current_stride != output_stride:
        legal = sorted({s for s in _running_strides(strides) if s >= 4})
        raise DeepLabError(
            f"{name} does not support output_stride={output_stride}; it must be one of "
            f"{', '.join(map(str, legal))}"
        )
    return units


def _running_strides(strides: Sequence[int]) -> list[int]:
    running, product = [], 1
    for stride in strides:
        product *= stride
        running.append(product)
    return running
