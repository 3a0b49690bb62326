"""Patch convolutions of ConvNeXt on images that are smaller than a patch."""

import pytest

from deeplab_jax.backbones.convnext import PatchConvolution
from deeplab_jax.layers import Form


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        ((1, 3), ((0, 3), (0, 1))),
        ((3, 9), ((0, 1), (0, 0))),
        ((4, 7), ((0, 0), (0, 0))),
    ],
)
def test_an_input_smaller_than_a_patch_is_padded_to_one_patch(size, padding):
    layer = PatchConvolution(8, kernel_size=4, stride=4, form=Form())
    assert layer.padding(size) == padding
