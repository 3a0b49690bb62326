"""Published weights: catalog, download, and conversion into model directories."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".published_models": "PretrainedModel find_pretrained list_pretrained",
        ".conversion": "Conversion convert",
        ".hub": "HubAddress",
        ".location": "check_reference convert_source locate",
    },
)
