"""Layers narrower than their network's design, as structured pruning leaves them."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping

from flax import linen as nn

from deeplab_jax.errors import unknown_name


class _Widths:
    """Output channels by path of layer, and the paths of the layers that asked."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        self.channels = channels
        self.asked: set[str] = set()


_widths: contextvars.ContextVar[_Widths | None] = contextvars.ContextVar("widths", default=None)


@contextlib.contextmanager
def narrowed(channels: Mapping[str, int]) -> Iterator[None]:
    """Gives layers other numbers of output channels while a network is traced in the context.

    Depthwise layers follow their input, and layers that take what others give follow those.

    Args:
      channels: by path of the layer, as in `backbone/layer_3/expand`.

    Raises:
      DeepLabError: at the end, a path is no layer's; names the nearest.
    """
    widths = _Widths(channels)
    token = _widths.set(widths)
    try:
        yield
    finally:
        _widths.reset(token)
    for path in channels:
        if path not in widths.asked:
            raise unknown_name("layer in widths", path, sorted(widths.asked))


def output_channels(module: nn.Module, designed: int) -> int:
    """Returns how many output channels a layer has.

    Args:
      module: the layer, bound.
      designed: what its network's design says.
    """
    widths = _widths.get()
    if widths is None:
        return designed
    path = "/".join(module.path)
    widths.asked.add(path)
    return widths.channels.get(path, designed)
