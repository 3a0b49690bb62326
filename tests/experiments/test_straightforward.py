"""What we measure against is the same network: its outputs are ours."""

import jax
import numpy as np
import pytest
from random_variables import random_variables

from deeplab_jax.models import create_model
from experiments.benchmarks.straightforward_flax import make_network, to_straightforward


@pytest.mark.parametrize(
    ("version", "backbone"),
    [
        ("v3", "mobilenet_v2"),
        pytest.param("v3plus", "mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("v3plus", "xception_65", marks=pytest.mark.slow),
    ],
)
def test_same_outputs(version, backbone):
    ours = create_model(f"deeplab_{version}", backbone=backbone, num_classes=21)
    image = np.random.default_rng(0).integers(0, 256, (2, 49, 65, 3), np.uint8)
    variables = random_variables(ours, image)
    expected = jax.jit(ours.apply)(variables, image)
    theirs = make_network(f"{version}/{backbone}")
    found = jax.jit(theirs.apply)(to_straightforward(variables), image)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
