"""Web app: a page that segments uploaded images, and its HTTP API."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".page": "build_page serving",
        ".service": "Answer Limits LoadingError SegmentationService",
    },
)
