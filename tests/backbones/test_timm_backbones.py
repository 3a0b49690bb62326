"""The backbones `timm/…` compute the same features as in timm, from weights with timm's names.

`make test` compares the small ones with numbers that write_timm_numbers.py recorded from timm; the
slow tests compare all of them with timm itself.
"""

import functools
import itertools
import json
import pathlib

import numpy as np
import pytest
from backbones.timm_weights import (
    EVEN,
    ODD,
    drawn_variables,
    named_variables,
    pixels,
    samples,
    summary,
)
from compiling import run_once
from selection import SMALL_OF_TIMM, slow_unless

from deeplab_jax import ops
from deeplab_jax.backbones import BACKBONES, find_backbone
from deeplab_jax.models import create_model, summarize

TOLERANCE = 1e-4
RECORDED = pathlib.Path(__file__).parent / "timm_numbers.json"
NAMES = [name.removeprefix("timm/") for name in BACKBONES if name.startswith("timm/")]
# Small networks, and their recorded cases. `make test` computes the first case of each.
SMALL = {
    "convnext_atto": [(EVEN, 8), (ODD, 16)],
    "convnextv2_atto": [(ODD, 8)],
    "resnet18d": [(ODD, 8), (EVEN, 16)],
    "regnety_002": [(EVEN, 8)],
    "tf_efficientnet_lite0": [(EVEN, 8)],
    "mobilenetv4_conv_small_035": [(ODD, 16)],
}
# Networks whose parameters `make test` counts, one of each family.
COUNTED = {*SMALL, "convnext_tiny", "resnet50d", "resnext50_32x4d", "regnety_040"}


@functools.cache
def variables(name):
    return drawn_variables(f"timm/{name}")


def feature_maps(name, size, output_stride):
    """Returns our maps at nominal strides 4, 8, 16 and 32."""
    entry = find_backbone(f"timm/{name}")
    normalization = {"normalization": entry.normalization} if entry.normalization else {}
    module = entry.module(output_stride=output_stride, **normalization)
    wanted = [*(feature.name for feature in entry.low_level), "output"]

    def run(variables, image):
        maps = module.apply(variables, image, train=False)
        return [maps[endpoint] for endpoint in wanted]

    with ops.dispatching(export=True):
        return list(map(np.asarray, run_once(run, variables(name), pixels(size))))


@functools.cache
def recorded():
    return json.loads(RECORDED.read_text())


@pytest.mark.parametrize(
    ("name", "size", "output_stride"),
    [
        pytest.param(name, *case, marks=pytest.mark.slow if number else [])
        for name, cases in SMALL.items()
        for number, case in enumerate(cases)
    ],
)
def test_features_are_those_that_timm_computed(name, size, output_stride):
    found = feature_maps(name, size, output_stride)
    expected = recorded()["features"][f"{name} {size[0]}x{size[1]} {output_stride}"]
    for ours, theirs in zip(map(samples, found), expected, strict=True):
        assert ours["shape"] == theirs["shape"]
        scale = theirs["largest"]
        np.testing.assert_allclose(ours["values"], theirs["values"], 0, TOLERANCE * scale)
        # The sum of errors grows with the root of their number.
        number = np.prod(theirs["shape"]) ** 0.5
        assert abs(ours["weighted_sum"] - theirs["weighted_sum"]) < TOLERANCE * scale * number


@pytest.mark.parametrize("name", slow_unless(COUNTED.__contains__, NAMES))
def test_every_variable_has_its_name_and_size_in_timm(name):
    arrays = {
        theirs: int(np.prod(shape)) for theirs, shape in named_variables(f"timm/{name}").values()
    }
    assert summary(arrays) == recorded()["networks"][name]


@pytest.mark.parametrize(
    "backbone", slow_unless(lambda backbone: backbone == "timm/resnet18d", SMALL_OF_TIMM)
)
def test_networks_are_summarized(backbone):
    summary = summarize(create_model("deeplab_v3plus", backbone=backbone), (65, 65))
    assert summary.macs > 0
    assert summary.receptive_field > 65


def compared(name):
    """Returns sizes and output strides; of large networks, each stride and each size once."""
    if name in SMALL:
        return list(itertools.product([EVEN, ODD], [32, 16, 8]))
    return [(ODD, 32), (EVEN, 16), (ODD, 8)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "output_stride"), [(name, *case) for name in NAMES for case in compared(name)]
)
def test_features_are_those_of_timm(name, size, output_stride):
    pytest.importorskip("torch", reason="torch and timm are needed: pip install deeplab_jax[peers]")
    from backbones import timm_networks

    expected = timm_networks.feature_maps(name, size, output_stride)
    for ours, theirs in zip(feature_maps(name, size, output_stride), expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.std(theirs) > 0.01
        assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(theirs).max()
