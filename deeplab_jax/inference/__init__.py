"""From images to class maps with a trained model."""

from deeplab_jax.inference.crf_files import read_crf_parameters
from deeplab_jax.inference.file_jobs import (
    ClassificationJob,
    FileJob,
    find_images,
    plan_classifications,
    plan_files,
)
from deeplab_jax.inference.files import predict_files, readable_files
from deeplab_jax.inference.image_classification import ImageClassification, classify_files
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.output_stride import at_output_stride
from deeplab_jax.inference.prediction import Prediction
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.inference.stored import load
from deeplab_jax.inference.submissions import (
    SERVERS,
    SubmissionJob,
    check_submission,
    plan_submission,
    write_submission,
)

__all__ = [
    "SERVERS",
    "ClassificationJob",
    "FileJob",
    "ImageClassification",
    "InferenceOptions",
    "Prediction",
    "Predictor",
    "SubmissionJob",
    "at_output_stride",
    "check_submission",
    "classify_files",
    "find_images",
    "load",
    "plan_classifications",
    "plan_files",
    "plan_submission",
    "predict_files",
    "read_crf_parameters",
    "readable_files",
    "write_submission",
]
