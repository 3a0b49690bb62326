"""The assembly of backbone, head, decoder and classifier, and its named forms."""

from deeplab_jax.models.architecture import Architecture
from deeplab_jax.models.catalog import (
    FORMAT_VERSION,
    check_format_version,
    create_model,
    list_models,
    resolve_stored,
)
from deeplab_jax.models.deeplab import DeepLab, fold
from deeplab_jax.models.image_classifier import (
    ImageClassifier,
    create_classifier,
    restore_classifier,
)
from deeplab_jax.models.reading import read_keywords
from deeplab_jax.models.summary import ModelSummary, summarize

__all__ = [
    "FORMAT_VERSION",
    "Architecture",
    "DeepLab",
    "ImageClassifier",
    "ModelSummary",
    "check_format_version",
    "create_classifier",
    "create_model",
    "fold",
    "list_models",
    "read_keywords",
    "resolve_stored",
    "restore_classifier",
    "summarize",
]
