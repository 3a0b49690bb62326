import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from flax import linen as nn
from flax import traverse_util
from random_variables import random_variables
from selection import slow_unless

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model, fold
from deeplab_jax.models.deeplab import _epsilon

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 49, 33, 3), dtype=np.uint8)
NARROW = {"num_classes": 5, "aspp_channels": 8, "low_level_channels": 4}
NETWORKS = {
    "mobilenet_v2": {"backbone": "mobilenet_v2", "depth_multiplier": 0.25},
    "resnet_18": {"backbone": "resnet_18", "batch_norm_epsilon": 0.1, "aux_head": True},
}


def network(name):
    model = create_model("deeplab_v3plus", **NARROW, **NETWORKS[name])
    return model, random_variables(model, IMAGE)


@pytest.mark.parametrize("name", slow_unless(lambda name: name == "mobilenet_v2", NETWORKS))
def test_folding_removes_normalizations_and_keeps_outputs(name):
    model, variables = network(name)
    folded, less = fold(model, variables)
    assert set(less) == {"params"}
    assert not [path for path in traverse_util.flatten_dict(less["params"]) if path[-1] == "scale"]
    expected = run_once(model.apply, variables, IMAGE)
    found = run_once(folded.apply, less, IMAGE)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
    assert fold(folded, less) == (folded, less)


@pytest.mark.parametrize("name", NETWORKS)
def test_epsilons_are_those_that_the_layers_add(name):
    model, variables = network(name)
    found = {}

    def note(call, arguments, keywords, context):
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            found[context.module.path] = context.module.epsilon
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, variables, IMAGE)
    assert {path: _epsilon(model.architecture, path[0]) for path in found} == found
    assert len(set(found.values())) == 2


def test_float64_is_folded_in_float64():
    model, variables = network("resnet_18")
    exact = jax.tree.map(np.float64, variables)
    params, found = (
        traverse_util.flatten_dict(each["params"], sep="/")
        for each in (exact, fold(model, exact)[1])
    )
    variance = traverse_util.flatten_dict(exact["batch_stats"], sep="/")["backbone/stem_1/norm/var"]
    factor = params["backbone/stem_1/norm/scale"] / np.sqrt(variance + 0.1)
    expected = params["backbone/stem_1/kernel"] * factor
    np.testing.assert_allclose(found["backbone/stem_1/kernel"], expected, rtol=1e-14)


def test_a_folded_network_is_not_trained():
    model, variables = network("mobilenet_v2")
    folded, less = fold(model, variables)
    with pytest.raises(DeepLabError, match="folded network cannot be trained"):
        jax.eval_shape(lambda: folded.apply(less, IMAGE, train=True))


def assert_class_map_is_the_argmax(model, variables):
    def both(variables, image):
        return model.apply(variables, image), model.apply(variables, image, method="class_map")

    logits, class_map = run_once(both, variables, IMAGE)
    np.testing.assert_array_equal(class_map, np.argmax(logits, -1))


def test_class_map_is_the_argmax_of_the_logits():
    assert_class_map_is_the_argmax(*network("mobilenet_v2"))


@pytest.mark.slow
def test_class_map_of_several_scales_is_that_of_the_fused_scores():
    model, _ = network("mobilenet_v2")
    several = dataclasses.replace(model.architecture, multi_scale=(1.0, 0.5))
    model = model.clone(architecture=several)
    assert_class_map_is_the_argmax(model, random_variables(model, IMAGE))
