"""Segmentation networks (backbone, head, decoder and classifier), and image classifiers."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "..architecture": "Architecture",
        "..named_architectures": "list_models",
        ".architectures": "create_model resolve_stored",
        ".deeplab": "DeepLab fold",
        ".image_classifier": "ImageClassifier create_classifier restore_classifier",
        ".keywords": "read_keywords",
        ".summary": "ModelSummary summarize",
    },
)
