"""Which cases of a parametrized test `make test` runs; the slow tests run all of them."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_unless(quick: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Returns the cases, those that are not quick marked as slow."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=[] if quick(case) else pytest.mark.slow))
    return marked
