"""The dense CRF at the end of inference."""

import jax
import numpy as np

from deeplab_jax.crf import CRFParameters, crf_parameters, dense_crf
from deeplab_jax.inference.options import DEFAULT_CRF, InferenceOptions
from deeplab_jax.models import Architecture


def find_parameters(options: InferenceOptions, architecture: Architecture) -> CRFParameters | None:
    """Returns the parameters that the options mean; None: no CRF."""
    if options.crf == DEFAULT_CRF:
        return crf_parameters(default_set(architecture))
    return crf_parameters(options.crf) if isinstance(options.crf, str) else options.crf


def default_set(architecture: Architecture) -> str:
    """Returns the name of the published set that goes with an architecture.

    DeepLab v3 and v3+ were published without a CRF; they take v2's for ResNet-101, whose scores are
    the nearest to theirs.
    """
    large = "_largefov" if architecture.fov == "large" else ""
    if architecture.decoder == "msc":
        return f"deeplab_msc{large}"
    if architecture.head == "large_fov" and architecture.backbone == "vgg_16":
        return f"deeplab{large}"
    if architecture.fusion == "sum" and architecture.backbone == "vgg_16":
        return "deeplab_v2_script"
    return "deeplab_v2_resnet_101"


def refine(logits: np.ndarray, image: np.ndarray, parameters: CRFParameters) -> np.ndarray:
    """Returns the probabilities of one image's pixels after the CRF.

    Args:
      logits: float32 [H, W, num_classes], of the image's own size.
      image: uint8 [H, W, 3], RGB.
      parameters: of the CRF.

    Returns:
      float32 [H, W, num_classes].
    """
    scores = np.ascontiguousarray(logits)
    return np.asarray(jax.device_get(dense_crf(scores[None], image[None], parameters))[0])
