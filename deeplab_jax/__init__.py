"""The DeepLab family for semantic segmentation in JAX and Flax.

The names below are imported when they are first used. Therefore, `import deeplab_jax` is fast, and
data-loading processes do not import JAX.
"""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".evaluation": "evaluate",
        ".loading": "load",
        ".models": "create_model list_models",
        ".pretrained": "list_pretrained",
        ".training": "cross_validate train",
    },
)
