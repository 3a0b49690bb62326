"""Late imports of modules (PEP 562) and of optional libraries."""

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
    """Returns `__getattr__`, `__dir__` and `__all__` of a package whose names are imported late.

    A command then imports only the modules that it uses, and `--help` imports neither JAX nor Flax.
    A public name must differ from the name of its module, because importing a module sets the
    attribute of that name.

    Args:
      package: `__name__` of the package.
      modules: module of the package, with a leading dot → public names, separated by spaces.
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
    """Returns a module of an optional library.

    Args:
      module: dotted name of the module.
      extra: extra of this package that installs the library.
      purpose: singular noun phrase that names what requires it, such as "a PyTorch file".

    Raises:
      DeepLabError: the library is not installed; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise DeepLabError(
            f"{library} is not installed, which {purpose} requires; "
            f"pip install 'deeplab_jax[{extra}]'"
        ) from error


def import_tensorflow(extra: str, purpose: str) -> ModuleType:
    """Returns TensorFlow, which then logs only errors; see `import_extra`."""
    # TensorFlow reads the variable when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra("tensorflow", extra, purpose)


@contextlib.contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Drops the warnings of a library's logger until the block ends."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
