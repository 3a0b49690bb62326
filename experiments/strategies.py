"""Inference strategies of the papers, as fields of `InferenceOptions`."""

# Image scales of DeepLab v3, from section 4.1 (VOC) and appendix C (Cityscapes).
VOC_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CITYSCAPES_SCALES = (0.75, 1.0, 1.25)

# The published CRF parameters of the architecture.
CRF = {"crf": "default"}
AT_16, AT_8 = {"output_stride": 16}, {"output_stride": 8}
MULTI_SCALE = {"scales": VOC_SCALES}
FLIP = {"flip": True}
