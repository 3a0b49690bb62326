"""Small networks that are fast to export, with variables that look trained."""

import jax
import jax.numpy as jnp
import numpy as np
from random_variables import random_variables

from deeplab_jax.inference import Predictor
from deeplab_jax.models import create_model

NAMES = ("sky", "<road>", "tree", "car")
PALETTE = ((70, 130, 180), (128, 64, 128), (107, 142, 35), (0, 0, 142))


def small_predictor(architecture: str, **overrides) -> Predictor:
    """Returns a predictor of an untrained network of four classes."""
    model = create_model(architecture, num_classes=4, **overrides)
    image = jax.ShapeDtypeStruct((1, 65, 65, model.architecture.in_channels), jnp.uint8)
    return Predictor(model, random_variables(model, image), NAMES, PALETTE, source="a test")


def depthwise_layers(predictor: Predictor) -> int:
    """Returns the number of depthwise convolutions, by the shapes of their kernels."""
    leaves = jax.tree.leaves(predictor.variables["params"])
    return sum(leaf.ndim == 4 and leaf.shape[2] == 1 for leaf in leaves)


def expected_logits(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Returns what the network itself gives."""
    return np.asarray(jax.jit(predictor.model.apply)(predictor.variables, images))
