"""Compiling for tests: programs that run once need not be fast."""

from collections.abc import Callable
from typing import Any

import jax


def run_once(function: Callable, *arguments: Any) -> Any:
    """Returns `function(*arguments)`, traced afresh and compiled without optimisation."""
    lowered = jax.jit(lambda *given: function(*given)).lower(*arguments)
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(*arguments)
