"""The DeepLab family for semantic segmentation in JAX and Flax.

The names below are loaded when they are first used, so that `import deeplab_jax` costs nothing and
the data workers need no JAX.
"""

import importlib

_HOME = {
    "create_model": "deeplab_jax.models",
    "cross_validate": "deeplab_jax.training",
    "list_models": "deeplab_jax.models",
    "evaluate": "deeplab_jax.evaluation",
    "list_pretrained": "deeplab_jax.pretrained",
    "load": "deeplab_jax.loading",
    "train": "deeplab_jax.training",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'deeplab_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
