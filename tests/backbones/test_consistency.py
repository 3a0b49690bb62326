"""Atrous consistency: a finer map, subsampled, is the coarser map of the same weights."""

import functools

import numpy as np
import pytest
from compiling import run_once
from random_variables import random_variables

from deeplab_jax.backbones import find_backbone


@functools.cache
def outputs(backbone, size):
    """Returns {output stride: features} of one image and one set of variables."""
    image = np.random.default_rng(1).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    make = find_backbone(backbone).module
    variables = random_variables(make(), image, train=False)

    def features(variables, image, output_stride):
        return make(output_stride=output_stride).apply(variables, image, train=False)["output"]

    return {
        stride: np.asarray(
            run_once(functools.partial(features, output_stride=stride), variables, image)
        )
        for stride in (4, 8, 16, 32)
    }


# A MobileNet's SAME padding is consistent on sizes of k·32 + 1 only.
@pytest.mark.parametrize(
    ("backbone", "size"),
    [("mobilenet_v2", (65, 97)), ("resnet_50", (65, 97)), ("resnet_50", (64, 90))],
)
@pytest.mark.parametrize(("coarse", "fine"), [(32, 4), (32, 8), (16, 4), (16, 8)])
def test_coarse_features_are_the_fine_ones_subsampled(backbone, size, coarse, fine):
    maps = outputs(backbone, size)
    step = coarse // fine
    subsampled = maps[fine][:, ::step, ::step]
    assert maps[coarse].shape[1:3] == tuple(-(-length // coarse) for length in size)
    assert maps[coarse].std() > 0.01
    error = np.abs(maps[coarse] - subsampled).max() / np.abs(maps[coarse]).max()
    assert error <= 1e-5
