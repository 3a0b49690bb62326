"""Training and cross-validation of segmentation networks."""

from deeplab_jax.training.cross_validation import CrossValidation, cross_validate
from deeplab_jax.training.train import TrainingResult, train

__all__ = ["CrossValidation", "TrainingResult", "cross_validate", "train"]
