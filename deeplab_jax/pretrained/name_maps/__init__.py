"""Variable names of other codebases for the networks of this one."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".conventions": "CONVENTIONS",
        ".rules": "IMAGE_CLASSIFIER Convention Identified Rule Scopes translate",
    },
)
