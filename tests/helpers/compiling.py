"""Compilation without optimization, for programs that run only once."""

from collections.abc import Callable
from typing import Any

import jax


def run_once(function: Callable, *arguments: Any) -> Any:
    """Returns `function(*arguments)`, traced again and compiled without optimization."""
    lowered = jax.jit(lambda *given: function(*given)).lower(*arguments)
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(*arguments)
