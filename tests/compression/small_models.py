"""Small models for the tests of compression."""

from functools import cache

import jax
import numpy as np
from random_variables import random_variables

from deeplab_jax.checkpointing import ModelDescription, StoredModel

CLASSES = ("sky", "road", "car")
SIZE = (33, 49)
SMALL = {
    "mobilenet_v2": (
        "deeplab_v3plus",
        {
            "backbone": "mobilenet_v2",
            "depth_multiplier": 0.25,
            "separable": True,
            "aspp_channels": 16,
            "low_level_channels": 8,
            "decoder_convs": ((3, 16),),
            "atrous_rates": (2, 3),
        },
    ),
    "mobilenet_v3": (
        "deeplab_v3",
        {"backbone": "mobilenet_v3_small", "depth_multiplier": 0.5, "aspp_channels": 16},
    ),
    "convnext": ("deeplab_v3", {"backbone": "timm/convnext_atto", "aspp_channels": 16}),
    "efficientnet": (
        "deeplab_v3",
        {"backbone": "timm/efficientnet_b0", "aspp_channels": 16, "aux_head": True},
    ),
    "mobilenet_v4": (
        "deeplab_v3",
        {"backbone": "timm/mobilenetv4_conv_small_035", "aspp_channels": 16},
    ),
    "regnet": ("deeplab_v3", {"backbone": "timm/regnety_002", "aspp_channels": 16}),
    "resnet": (
        "deeplab_v3",
        {"backbone": "resnet_18", "aspp_channels": 16, "aux_head": True, "output_stride": 32},
    ),
}


def describe(name: str, **changes) -> ModelDescription:
    """Returns the description of a small model."""
    architecture, overrides = SMALL[name]
    return ModelDescription(
        architecture,
        overrides | {"num_classes": len(CLASSES)} | changes,
        CLASSES,
        ((0, 0, 0), (128, 0, 0), (0, 128, 0)),
    )


@cache
def stored(name: str) -> StoredModel:
    """Returns a small model with random variables, in which every layer matters."""
    description = describe(name)
    model = description.create_model()
    return StoredModel(model, random_variables(model, images(1)), description)


def images(count: int, seed: int = 0) -> np.ndarray:
    """Returns noise, uint8 [count, H, W, 3]."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, *SIZE, 3), np.uint8)


def logits(model: StoredModel, batch: np.ndarray) -> np.ndarray:
    """Returns a model's logits."""
    return np.asarray(jax.jit(model.model.apply)(model.variables, batch))
