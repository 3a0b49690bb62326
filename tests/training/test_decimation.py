"""Layers subsampled from a small VGG-16."""

import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.training.initialization import decimated

RANDOM = np.random.default_rng(0)
VGG = {
    ("params", "backbone", "conv1_1", "kernel"): RANDOM.random((3, 3, 3, 4)),
    ("params", "large_fov", "fc6", "kernel"): RANDOM.random((7, 7, 5, 16)),
    ("params", "large_fov", "fc6", "bias"): RANDOM.random(16),
    ("params", "large_fov", "fc7", "kernel"): RANDOM.random((1, 1, 16, 16)),
    ("params", "large_fov", "fc7", "bias"): RANDOM.random(16),
}
FC6, FC7 = VGG["params", "large_fov", "fc6", "kernel"], VGG["params", "large_fov", "fc7", "kernel"]


def wanted(kernel_size, channels, *modules):
    shapes = {
        ("fc6", "kernel"): (kernel_size, kernel_size, 5, channels),
        ("fc6", "bias"): (channels,),
        ("fc7", "kernel"): (1, 1, channels, channels),
        ("fc7", "bias"): (channels,),
    }
    backbone = ("params", "backbone", "conv1_1", "kernel")
    found = {
        ("params", *module, *leaf): np.zeros(shapes[leaf]) for module in modules for leaf in shapes
    }
    return found | {backbone: VGG[backbone]}


@pytest.mark.parametrize(
    ("kernel_size", "rows"), [(3, [0, 3, 6]), (4, [0, 2, 4, 6]), (7, list(range(7)))]
)
def test_kernels_keep_evenly_spaced_rows_and_columns(kernel_size, rows):
    found = decimated(VGG, wanted(kernel_size, 16, ("large_fov",)))
    kernel = found["params", "large_fov", "fc6", "kernel"]
    np.testing.assert_array_equal(kernel, FC6[rows][:, rows])
    np.testing.assert_array_equal(found["params", "large_fov", "fc7", "kernel"], FC7)


def test_narrow_layers_keep_whole_filters_and_fc7_the_inputs_that_are_left():
    found = decimated(VGG, wanted(3, 6, ("large_fov",)))
    arrays = {path[2:]: array for path, array in found.items()}
    filters = [
        np.flatnonzero(np.isclose(VGG["params", "large_fov", layer, "bias"][:, None], kept).any(1))
        for layer, kept in (("fc6", arrays["fc6", "bias"]), ("fc7", arrays["fc7", "bias"]))
    ]
    assert [len(each) for each in filters] == [6, 6]
    assert filters[0].tolist() != filters[1].tolist() != list(range(6))
    np.testing.assert_array_equal(
        arrays["fc6", "kernel"], FC6[np.ix_([0, 3, 6], [0, 3, 6], range(5), filters[0])]
    )
    np.testing.assert_array_equal(
        arrays["fc7", "kernel"], FC7[np.ix_([0], [0], filters[0], filters[1])]
    )


def test_decimation_initializes_branches_equally_and_keeps_the_rest():
    branches = ("aspp", "rate_6"), ("aspp", "rate_12")
    target = wanted(3, 6, *branches)
    found = decimated(VGG, target)
    assert found.keys() == target.keys()
    for layer in ("fc6", "fc7"):
        first, second = (found["params", *branch, layer, "kernel"] for branch in branches)
        np.testing.assert_array_equal(first, second)
    backbone = ("params", "backbone", "conv1_1", "kernel")
    np.testing.assert_array_equal(found[backbone], VGG[backbone])


def test_kernels_that_cannot_be_decimated_are_refused():
    with pytest.raises(DeepLabError, match=r"fc6 of shape \[3, 3, 5, 17\] cannot be subsampled"):
        decimated(VGG, wanted(3, 17, ("large_fov",)))
    with pytest.raises(
        DeepLabError, match="requires the weights of VGG-16, but params/large_fov/fc6"
    ):
        decimated({}, wanted(3, 6, ("large_fov",)))
