"""Packages that import their public names when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package whose names are imported late.

    A command then imports what it uses, and `--help` imports neither JAX nor Flax. A public name
    must differ from the name of its module: importing the module sets that attribute.

    Args:
      package: `__name__` of the package.
      modules: module of the package, with a leading dot → its public names, separated by spaces.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: [*vars(sys.modules[package]), *home], list(home)
