"""Atrous consistency: a map at a smaller output stride, subsampled, is that at a larger one."""

import functools
import itertools

import numpy as np
import pytest
from compiling import run_once
from flax import traverse_util
from random_variables import random_variables
from selection import slow_unless

from deeplab_jax.backbones import find_backbone


@functools.cache
def image_and_variables(backbone, size):
    image = np.random.default_rng(1).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    variables = random_variables(find_backbone(backbone).module(), image, train=False)
    return image, _without_squeezing(variables)


def _without_squeezing(variables):
    """Returns variables with which gates do not depend on the map.

    Squeeze and excitation averages the whole map, and a finer map has additional pixels, so it is
    not atrous-consistent in any implementation. The same holds for global response normalization.
    """
    gates = ("excite", "kernel"), ("response_norm", "scale")
    flat = traverse_util.flatten_dict(variables)
    return traverse_util.unflatten_dict(
        {path: np.zeros_like(leaf) if path[-2:] in gates else leaf for path, leaf in flat.items()}
    )


@functools.cache
def features(backbone, size, output_stride):
    """Returns the last map; image and variables depend only on the backbone and the size."""
    image, variables = image_and_variables(backbone, size)
    module = find_backbone(backbone).module(output_stride=output_stride)
    return np.asarray(
        run_once(lambda v, x: module.apply(v, x, train=False)["output"], variables, image)
    )


@pytest.mark.parametrize(
    ("backbone", "size", "coarse", "fine"),
    [
        *itertools.product(["mobilenet_v2"], [(65, 97)], [16, 32], [4, 8]),
        *slow_unless(
            lambda case: case[2] == 16,
            itertools.product(
                ["resnet_18_beta", "xception_41", "mobilenet_v3_small_seg"],
                [(65, 33)],
                [16, 32],
                [8],
            ),
        ),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(
                [
                    "resnet_50",
                    "resnet_101_beta",
                    "xception_65",
                    "xception_71",
                    "mobilenet_v3_large",
                ],
                [(65, 97)],
                [16, 32],
                [4, 8],
            )
        ],
        # A MobileNet's SAME padding is consistent on sizes of k·32 + 1 only.
        ("resnet_50", (64, 90), 32, 8),
        ("timm/regnety_002", (65, 97), 16, 8),
        pytest.param("timm/regnety_002", (65, 97), 32, 8, marks=pytest.mark.slow),
        # At output stride 8, timm centers the dilated 2×2 kernels of a ConvNeXt and does not dilate
        # the averages of a ResNet-D, so only 16 and 32 agree.
        ("timm/convnext_atto", (64, 96), 32, 16),
        pytest.param("timm/convnextv2_atto", (64, 96), 32, 16, marks=pytest.mark.slow),
        pytest.param("timm/resnet18d", (64, 96), 32, 16, marks=pytest.mark.slow),
        pytest.param("timm/efficientnet_lite0", (65, 97), 32, 8, marks=pytest.mark.slow),
        pytest.param("timm/tf_efficientnet_b0", (65, 97), 32, 8, marks=pytest.mark.slow),
        pytest.param("timm/efficientnetv2_s", (65, 97), 32, 8, marks=pytest.mark.slow),
        pytest.param("timm/mobilenetv4_conv_small", (65, 97), 32, 8, marks=pytest.mark.slow),
        pytest.param("timm/resnet34", (65, 97), 32, 8, marks=pytest.mark.slow),
        pytest.param("timm/resnext50_32x4d", (65, 97), 32, 8, marks=pytest.mark.slow),
    ],
)
def test_coarse_features_are_the_fine_ones_subsampled(backbone, size, coarse, fine):
    found, finer = (features(backbone, size, stride) for stride in (coarse, fine))
    step = coarse // fine
    assert found.shape[1:3] == tuple(-(-length // coarse) for length in size)
    assert found.std() > 0.01
    assert np.abs(found - finer[:, ::step, ::step]).max() <= 1e-5 * np.abs(found).max()
