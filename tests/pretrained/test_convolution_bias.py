"""Biases of convolutions before batch normalizations, which our networks do not have."""

import numpy as np
import pytest

from deeplab_jax.pretrained.assignment import Wanted, assign
from deeplab_jax.pretrained.name_maps.rules import LEAVES, Convention, Rule
from deeplab_jax.pretrained.weights import PublishedWeights

MODULE = ("backbone", "conv")
STATISTICS = ("batch_stats", *MODULE, "norm")
SHAPES = {
    ("params", *MODULE, "kernel"): (1, 1, 2, 3),
    ("params", *MODULE, "norm", "scale"): (3,),
    ("params", *MODULE, "norm", "bias"): (3,),
    (*STATISTICS, "mean"): (3,),
    (*STATISTICS, "var"): (3,),
}
CONVENTION = Convention("made up", lambda _: None, lambda _: (), LEAVES)
RULES = (Rule("backbone/conv", "conv", "bn"),)


@pytest.mark.parametrize("size", [3, 4])
def test_the_bias_is_subtracted_from_the_mean(size):
    names = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    arrays = {name: np.arange(3, dtype=np.float32) + n for n, name in enumerate(names)}
    arrays["conv.weight"] = np.ones((3, 2, 1, 1), np.float32)
    arrays["conv.bias"] = np.full(size, 0.5, np.float32)
    found = assign(Wanted(SHAPES, {}), PublishedWeights(arrays, "pytorch"), CONVENTION, RULES)
    assert not found.missing
    assert not found.mismatched
    shift = 0.5 if size == 3 else 0.0
    mean = found.arrays[*STATISTICS, "mean"]
    np.testing.assert_array_equal(mean, arrays["bn.running_mean"] - shift)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(arrays["bn.running_mean"], [2, 3, 4])
    assert list(found.unused) == ([] if size == 3 else ["conv.bias"])
