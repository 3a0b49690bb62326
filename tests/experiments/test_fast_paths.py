"""Each fast path can be switched off by itself, for its measurement."""

import dataclasses

import pytest

from deeplab_jax.errors import DeepLabError
from experiments.benchmarks.fast_paths import FAST_PATHS, lower, measure_paths


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST_PATHS)
def test_the_reference_is_another_program(name):
    path = dataclasses.replace(FAST_PATHS[name], size=(65, 65), batch_size=2)
    fast = lower(path)[0].as_text()
    with path.switched_off():
        assert lower(path)[0].as_text() != fast
    assert lower(path)[0].as_text() == fast


def test_an_unknown_path_is_an_error_with_the_nearest_name():
    with pytest.raises(DeepLabError, match="valid region"):
        measure_paths("valid regoin", 1)
