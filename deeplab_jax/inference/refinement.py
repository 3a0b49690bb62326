"""The dense CRF as the last step of inference."""

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.backbones import find_backbone
from deeplab_jax.crf import CRFParameters, crf_parameters, dense_crf
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.options import DEFAULT_CRF, InferenceOptions
from deeplab_jax.models import Architecture


def find_parameters(options: InferenceOptions, architecture: Architecture) -> CRFParameters | None:
    """Returns the CRF parameters that inference options select; None if they select no CRF.

    Raises:
      DeepLabError: a CRF is requested for a network whose input is not 8-bit RGB.
    """
    if options.crf is not None and not architecture.takes_rgb:
        raise DeepLabError(
            f"a CRF requires 8-bit RGB images, but the model takes {architecture.in_channels} "
            f"bands of {architecture.image_dtype}; use the model without a CRF"
        )
    if options.crf == DEFAULT_CRF:
        return crf_parameters(default_set(architecture))
    return crf_parameters(options.crf) if isinstance(options.crf, str) else options.crf


def default_set(architecture: Architecture) -> str:
    """Returns the name of the published CRF parameters of an architecture.

    DeepLab v3 and v3+, and DeepLab v1 on other backbones than VGG-16, were published without a CRF.
    For them, the function returns `deeplab_v2_resnet_101`, the parameters of the most similar
    network with a CRF.
    """
    if not find_backbone(architecture.backbone).fully_connected:
        return "deeplab_v2_resnet_101"
    large = "_largefov" if architecture.fov == "large" else ""
    if architecture.decoder == "msc":
        return f"deeplab_msc{large}"
    if architecture.head == "large_fov":
        return f"deeplab{large}"
    return "deeplab_v2_script" if architecture.fusion == "sum" else "deeplab_v2_resnet_101"


def refine(logits: np.ndarray, image: np.ndarray, parameters: CRFParameters) -> np.ndarray:
    """Refines logits with the CRF; returns the class probabilities of one image.

    Args:
      logits: float32 [H, W, num_classes], at the size of the image.
      image: uint8 [H, W, 3], RGB.
      parameters: parameters of the CRF.

    Returns:
      float32 [H, W, num_classes].
    """
    scores, colors = jnp.asarray(logits), jnp.asarray(image)
    refined = jax.device_get(dense_crf(scores[None], colors[None], parameters))[0]
    # JAX owns the memory of `refined`, which is read-only.
    return np.array(refined)
