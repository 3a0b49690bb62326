"""Libraries that only some formats need."""

import importlib
from types import ModuleType

from deeplab_jax.errors import DeepLabError


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Returns a module of an optional library.

    Args:
      module: its dotted name.
      extra: of this package that installs it.
      purpose: what it is needed for, as in "PyTorch files".

    Raises:
      DeepLabError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        raise DeepLabError(
            f"{purpose} need {library}, which is not installed: pip install 'deeplab_jax[{extra}]'"
        ) from error
