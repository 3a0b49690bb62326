"""Lazy imports of the public names of a package (PEP 562), and imports of optional libraries."""

import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from deeplab_jax.errors import DeepLabError


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` for a package that imports names on first use.

    Therefore, a command imports only the modules that it uses, and `--help` imports neither JAX nor
    Flax.

    A public name must not equal the name of a module of the package, because importing a module
    sets an attribute of the package with the name of the module.

    Args:
      package: `__name__` of the package.
      modules: the public names of each module, separated by spaces, by name of the module, such as
        ".losses".
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: [*vars(sys.modules[package]), *home], list(home)


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports a module of an optional library.

    Args:
      module: dotted name of the module.
      extra: pip extra of deeplab_jax that installs the library.
      purpose: what requires the library, for the error message; a singular noun phrase such as "a
        PyTorch file".

    Raises:
      DeepLabError: the library is not installed or cannot be imported, for example because another
        library is missing. The message names the command that installs the library.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library, missing = (name.partition(".")[0] for name in (module, error.name or ""))
        command = f"run pip install 'deeplab_jax[{extra}]'"
        if isinstance(error, ModuleNotFoundError) and missing == library:
            reason = f"is not installed; {command}"
        else:
            cause = " ".join(str(error).split())
            reason = f"cannot be imported ({cause}); {command}, or reinstall {library}"
        raise DeepLabError(f"{purpose} requires {library}, which {reason}") from error


def import_tensorflow(extra: str, purpose: str) -> ModuleType:
    """Imports TensorFlow and limits its log to errors.

    Args:
      extra: pip extra of deeplab_jax that installs TensorFlow.
      purpose: what requires TensorFlow, for the error message, such as "a TensorFlow file".

    Raises:
      DeepLabError: TensorFlow is not installed.
    """
    # TensorFlow reads the variable during its import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra("tensorflow", extra, purpose)


@contextlib.contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Suppresses the warnings of the logger called `name` inside the `with` block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
