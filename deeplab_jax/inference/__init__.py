"""From images to class maps with a trained model."""

from deeplab_jax.inference.files import (
    ClassificationJob,
    FileJob,
    find_images,
    plan_classifications,
    plan_files,
    predict_files,
    readable_files,
)
from deeplab_jax.inference.image_classification import ImageClassification, classify_files
from deeplab_jax.inference.objects import (
    Box,
    SegmentedObject,
    composite,
    feathered,
    find_objects,
    soft_mask,
)
from deeplab_jax.inference.options import InferenceOptions, read_crf_parameters
from deeplab_jax.inference.output_stride import at_output_stride, rates_at
from deeplab_jax.inference.predictor import Prediction, Predictor
from deeplab_jax.inference.stored import load
from deeplab_jax.inference.submissions import (
    SERVERS,
    SubmissionJob,
    check_submission,
    plan_submission,
    write_submission,
)
from deeplab_jax.inference.video_files import VideoJob, is_video, plan_camera, plan_videos
from deeplab_jax.inference.videos import (
    VideoReport,
    averaged_over_time,
    changed_share,
    class_areas,
    predict_video,
    stable_class_maps,
)

__all__ = [
    "SERVERS",
    "Box",
    "ClassificationJob",
    "FileJob",
    "ImageClassification",
    "InferenceOptions",
    "Prediction",
    "Predictor",
    "SegmentedObject",
    "SubmissionJob",
    "VideoJob",
    "VideoReport",
    "at_output_stride",
    "averaged_over_time",
    "changed_share",
    "check_submission",
    "class_areas",
    "classify_files",
    "composite",
    "feathered",
    "find_images",
    "find_objects",
    "is_video",
    "load",
    "plan_camera",
    "plan_classifications",
    "plan_files",
    "plan_submission",
    "plan_videos",
    "predict_files",
    "predict_video",
    "rates_at",
    "read_crf_parameters",
    "readable_files",
    "soft_mask",
    "stable_class_maps",
    "write_submission",
]
