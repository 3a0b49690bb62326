"""Maps from the module paths of this codebase to the variable names of other codebases."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".conventions": "CONVENTIONS",
        ".rules": "IMAGE_CLASSIFIER Convention Identified Rule Scopes translate",
    },
)
