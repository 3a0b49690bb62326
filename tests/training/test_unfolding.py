import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from flax import linen as nn
from flax import traverse_util
from random_variables import random_variables

from deeplab_jax.models import create_model
from deeplab_jax.parallel import make_mesh
from deeplab_jax.training.unfolding import unfold_batch_norm

SIZE = (33, 49)


@pytest.fixture(scope="module")
def model():
    return create_model(
        "deeplab_v3", backbone="mobilenet_v2", depth_multiplier=0.25, aspp_channels=8
    )


@pytest.fixture(scope="module")
def batches():
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (4, *SIZE, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def folded(model, batches):
    """Variables whose batch normalizations are the identity plus an offset, and their paths."""
    variables = random_variables(model, batches[0][:1])
    flat = traverse_util.flatten_dict(variables)
    paths = {path[1:-1] for path in flat if path[-1] == "var"}
    for path in paths:
        # What is in the head has another constant than the backbone.
        epsilon = 1e-3 if path[0] == "backbone" else 1e-5
        flat["params", *path, "scale"] = np.ones_like(flat["params", *path, "scale"])
        flat["batch_stats", *path, "mean"] = np.zeros_like(flat["batch_stats", *path, "mean"])
        flat["batch_stats", *path, "var"] = np.full_like(
            flat["batch_stats", *path, "var"], 1 - epsilon
        )
    return traverse_util.unflatten_dict(flat), frozenset(paths)


@pytest.fixture(scope="module")
def unfolded(model, folded, batches):
    return unfold_batch_norm(model, *folded, batches, make_mesh())


def test_unfolding_keeps_the_output(model, folded, unfolded, batches):
    apply = jax.jit(model.apply)
    before, after = (apply(variables, batches[1]) for variables in (folded[0], unfolded))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())


@pytest.mark.slow
def test_statistics_are_those_of_all_pixels(model, unfolded, batches):
    def inputs_of_normalizations(variables, images):
        seen = {}

        def record(function, arguments, keywords, context):
            path = context.module.path
            if isinstance(context.module, nn.BatchNorm) and path[-2] == "depthwise":
                seen["/".join(path)] = arguments[0]
            return function(*arguments, **keywords)

        with nn.intercept_methods(record):
            model.apply(variables, images)
        return seen

    seen = jax.jit(inputs_of_normalizations)(unfolded, np.concatenate(batches))
    assert len(seen) == 17
    flat = traverse_util.flatten_dict(unfolded["batch_stats"], sep="/")
    for path, inputs in jax.tree.map(np.float64, jax.device_get(seen)).items():
        mean, variance = inputs.mean((0, 1, 2)), inputs.var((0, 1, 2))
        np.testing.assert_allclose(flat[f"{path}/mean"], mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(flat[f"{path}/var"], variance, rtol=2e-3, atol=1e-6)


def test_training_on_those_images_computes_the_same(model, unfolded, batches):
    """With the statistics of the batch, the network computes the same function."""

    def both(variables, images):
        options = {"train": True, "mutable": ["batch_stats"]}
        trained, _ = model.apply(variables, images, rngs={"dropout": jax.random.key(0)}, **options)
        return trained, model.apply(variables, images)

    trained, expected = run_once(both, unfolded, np.concatenate(batches))
    # Dropout alone tells them apart.
    spread = jnp.std(expected)
    assert float(jnp.mean(jnp.abs(trained - expected))) < 0.5 * float(spread)


def test_unfolded_layers_are_unchanged(model, folded, batches):
    variables, paths = folded
    one = ("backbone", "layer_3", "expand", "norm")
    changed = unfold_batch_norm(model, variables, frozenset({one}), batches[:1], make_mesh())
    before, after = (traverse_util.flatten_dict(v) for v in (variables, changed))
    differing = {path for path in before if not np.array_equal(before[path], after[path])}
    assert {path[1:-1] for path in differing} == {one}
    assert one in paths
