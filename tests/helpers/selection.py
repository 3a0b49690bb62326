"""Which cases of a parametrized test `make test` runs; the slow tests run all of them."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest


def slow_unless(quick: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Returns the cases, those that are not quick marked as slow."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=[] if quick(case) else pytest.mark.slow))
    return marked


# Small networks of timm, one of each family. tests/backbones compares all of them with timm.
SMALL_OF_TIMM = (
    *("timm/resnet18d", "timm/convnext_atto", "timm/regnety_002"),
    *("timm/efficientnet_lite0", "timm/mobilenetv4_conv_small_035"),
)


def one_of_each_family(backbones: Collection[str]) -> list[str]:
    """Returns the backbones without most of those that have a name in timm."""
    return [name for name in backbones if not name.startswith("timm/") or name in SMALL_OF_TIMM]
