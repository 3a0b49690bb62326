"""From images to class maps with a trained model."""

from deeplab_jax.inference.file_jobs import FileJob, plan_files
from deeplab_jax.inference.files import predict_files, readable_files
from deeplab_jax.inference.prediction import Prediction
from deeplab_jax.inference.predictor import Predictor, load

__all__ = [
    "FileJob",
    "Prediction",
    "Predictor",
    "load",
    "plan_files",
    "predict_files",
    "readable_files",
]
