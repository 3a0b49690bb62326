"""Conversion of strides to atrous rates for an output stride (DeepLab v3, section 3.1)."""

from collections.abc import Sequence
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError


class Feature(NamedTuple):
    """An endpoint of a backbone.

    Attributes:
      name: key among the endpoints.
      channels: number of channels at depth multiplier 1.
      stride: ratio of image to map resolution, before any stride becomes a rate.
    """

    name: str
    channels: int
    stride: int


class Unit(NamedTuple):
    """Stride and atrous rate of one convolution or unit."""

    stride: int
    rate: int


def strides_to_rates(strides: Sequence[int], output_stride: int, name: str) -> list[Unit]:
    """Returns the stride and atrous rate of each unit so that the last map has `output_stride`.

    Once the product of strides has reached `output_stride`, each further unit has stride 1 and the
    current rate, and the rate is multiplied by the stride that the unit lost only after it. The
    unit that loses its stride therefore still uses the old rate (DeepLab v3, section 3.1, as
    released).

    Args:
      strides: nominal stride of every unit, in order.
      output_stride: ratio of image to last map resolution.
      name: name of the network, for the error.

    Raises:
      DeepLabError: no prefix of the strides has `output_stride` as its product.
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
