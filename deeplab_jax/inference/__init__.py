"""Prediction for images and videos with a trained model, and detection of objects in class maps."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".files": (
            "ClassificationJob FileJob find_images plan_classifications plan_files predict_files "
            "read_input readable_files"
        ),
        ".image_classification": "ImageClassification classify_files",
        ".objects": "Box SegmentedObject composite feathered find_objects soft_mask",
        ".options": "InferenceOptions read_crf_parameters",
        ".predictor": "Prediction Predictor",
        ".pseudo_labels": "named_images pseudo_label write_pseudo_labels",
        ".stored": "load predictor_of",
        ".submissions": "SERVERS SubmissionJob check_submission plan_submission write_submission",
        ".uncertainty": "UNCERTAINTIES uncertainty_functions",
        ".video_files": "VideoJob check_masks is_video plan_camera plan_videos",
        ".videos": (
            "VideoReport averaged_over_time changed_share class_areas predict_video "
            "stable_class_maps"
        ),
    },
)
