"""Logits, loss and gradients on fixed variables."""

import functools
import itertools

import jax
import numpy as np
import pytest
from compiling import run_once
from flax import traverse_util
from golden.recording import recorded
from random_variables import random_variables
from selection import slow_unless

from deeplab_jax.losses import num_valid_pixels, softmax_cross_entropy
from deeplab_jax.models import create_model

POOLED = {"num_classes": 5, "aspp_channels": 8, "dropout_rate": 0.0}
SMALL = POOLED | {"image_pooling": "crop", "pooling_crop": (33, 33)}
MOBILENET = {"backbone": "mobilenet_v2", "depth_multiplier": 0.25}
CASES = {
    "v1_vgg": ("deeplab_v1", {"fc_channels": 8, "num_classes": 5, "dropout_rate": 0.0}),
    "v2_resnet": (
        "deeplab_v2",
        {"backbone": "resnet_18", "num_classes": 5, "multi_scale": (1, 0.5)},
    ),
    "v3_resnet": (
        "deeplab_v3",
        SMALL | {"backbone": "resnet_18_beta", "multi_grid": (1, 2)},
    ),
    "v3plus_mobilenet": (
        "deeplab_v3plus",
        SMALL | MOBILENET | {"decoder_convs": ((3, 8),), "separable": True},
    ),
    "v3plus_xception": ("deeplab_v3plus", SMALL | {"backbone": "xception_41"}),
    "torchvision": (
        "torchvision/deeplabv3_mobilenet_v3_large",
        SMALL | {"depth_multiplier": 0.35},
    ),
    "lr_aspp": ("deeplab_v3", {"backbone": "mobilenet_v3_small_seg", "num_classes": 5}),
    "cascade": (
        "deeplab_v3",
        {"backbone": "resnet_18", "head": "cascade", "num_classes": 5},
    ),
    "dpc": ("deeplab_v3plus", POOLED | MOBILENET | {"head": "dpc"}),
    "spp": ("deeplab_v3", POOLED | MOBILENET | {"head": "spp"}),
}
QUICK = {("v3_resnet", "float32"), ("v3plus_mobilenet", "float32")}
# The statistics of small maps magnify float32's rounding: training is compared in float64.
MODES = {"float64": {"inference": False, "training": True}, "float32": {"inference": False}}
TOLERANCE = {"float64": 1e-9, "float32": 2e-5}
# Odd, and larger than the crop that image pooling averages over.
SIZE = (49, 65)


def numbers(name, dtype):
    """Returns sampled logits and the loss, in float64 also each layer's gradient.

    In float32 a few activations fall on the other side of a rectifier's kink, which moves some
    gradients by a thousandth.
    """
    architecture, keywords = CASES[name]
    model = create_model(architecture, dtype=dtype, **keywords)
    random = np.random.default_rng(7)
    image = random.integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    label = random.choice([0, 1, 2, 3, 4, 255], (2, *SIZE)).astype(np.uint8)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), random_variables(model, image))

    def loss(params, train):
        logits, _ = model.apply(
            variables | {"params": params},
            image,
            train=train,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(3)},
        )
        return softmax_cross_entropy(logits, label, num_valid_pixels(label)), logits

    found = {}
    for mode, train in MODES[dtype].items():
        function = functools.partial(loss, train=train)
        if dtype == "float64":
            function = jax.value_and_grad(function, has_aux=True)
            (value, logits), gradient = run_once(function, variables["params"])
            found[f"{mode}_gradient"] = _along_fixed_directions(gradient)
        else:
            value, logits = run_once(function, variables["params"])
        found[f"{mode}_logits"] = [float(x) for x in np.asarray(logits, np.float64).ravel()[::977]]
        found[f"{mode}_loss"] = [float(value)]
    return found


def _along_fixed_directions(gradient):
    """Returns a number for each layer: its gradient's product with fixed signs, over its length."""
    found = []
    for path, leaf in sorted(traverse_util.flatten_dict(gradient, sep="/").items()):
        signs = np.random.default_rng(len(path)).choice([-1.0, 1.0], leaf.shape)
        found.append(float(np.sum(np.asarray(leaf, np.float64) * signs) / np.sqrt(leaf.size)))
    return found


@pytest.mark.parametrize(
    ("name", "dtype"), slow_unless(QUICK.__contains__, itertools.product(CASES, TOLERANCE))
)
def test_logits_and_gradients(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        found = numbers(name, dtype)
    # One record serves both: float32 is compared with what float64 gave.
    stored = recorded(f"numbers/{name}.json", found if dtype == "float64" else None)
    for quantity, values in found.items():
        scale = np.abs(stored[quantity]).max()
        np.testing.assert_allclose(
            values, stored[quantity], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=quantity
        )
