"""The assembly of backbone, head, decoder and classifier, and its named forms."""

from deeplab_jax.models.architecture import Architecture
from deeplab_jax.models.catalog import create_model, list_models
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.folding import fold
from deeplab_jax.models.image_classifier import ImageClassifier, create_classifier
from deeplab_jax.models.summary import ModelSummary, summarize

__all__ = [
    "Architecture",
    "DeepLab",
    "ImageClassifier",
    "ModelSummary",
    "create_classifier",
    "create_model",
    "fold",
    "list_models",
    "summarize",
]
