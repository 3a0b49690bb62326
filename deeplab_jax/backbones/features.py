"""What a backbone tells of its feature maps."""

from typing import NamedTuple


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
