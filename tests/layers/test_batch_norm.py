"""Ghost batch normalization compared with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import ConvNorm, Normalization
from deeplab_jax.layers.batch_norm import GroupedBatchNorm, ShardedBatchNorm

DECAY, EPSILON = 0.9, 1e-3


def inputs(count=6):
    return np.random.default_rng(0).normal(3, 2, (count, 3, 5, 4)).astype(np.float32)


def make(group, train=True, dtype=jnp.float32):
    return GroupedBatchNorm(
        use_running_average=not train,
        momentum=DECAY,
        epsilon=EPSILON,
        dtype=dtype,
        group_size=group,
    )


def variables():
    random = np.random.default_rng(1)
    scale, bias, mean, var = random.uniform(0.5, 2, (4, 4)).astype(np.float32)
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}


def by_numpy(x, group, given):
    """Normalizes each group; also returns the new moving averages."""
    params, stats = given["params"], given["batch_stats"]
    parts = np.split(x.astype(np.float64), len(x) // group)
    means = [part.mean((0, 1, 2)) for part in parts]
    variances = [part.var((0, 1, 2)) for part in parts]
    normalized = [
        (part - mean) / np.sqrt(variance + EPSILON) * params["scale"] + params["bias"]
        for part, mean, variance in zip(parts, means, variances, strict=True)
    ]
    averages = {
        "mean": DECAY * stats["mean"] + (1 - DECAY) * np.mean(means, 0),
        "var": DECAY * stats["var"] + (1 - DECAY) * np.mean(variances, 0),
    }
    return np.concatenate(normalized), averages


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_each_group_is_normalised_by_itself(group):
    x, given = inputs(), variables()
    found, changed = make(group).apply(given, x, mutable=["batch_stats"])
    expected, averages = by_numpy(x, group, given)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for name, average in averages.items():
        np.testing.assert_allclose(changed["batch_stats"][name], average, rtol=1e-5)


def test_a_group_of_all_is_the_ordinary_normalisation():
    x, given = inputs(), variables()
    ordinary = nn.BatchNorm(use_running_average=False, momentum=DECAY, epsilon=EPSILON)

    def loss(given, module):
        outputs, changed = module.apply(given, x, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(outputs)), (outputs, changed)

    def both(given):
        gradient = jax.value_and_grad(loss, has_aux=True)
        return gradient(given, ordinary), gradient(given, make(len(x)))

    one, other = jax.jit(both)(given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)
    fresh = [module.init(jax.random.key(0), x) for module in (ordinary, make(2))]
    assert jax.tree.structure(fresh[0]) == jax.tree.structure(fresh[1])
    jax.tree.map(np.testing.assert_array_equal, *fresh)


def test_evaluation_uses_the_averages_whatever_the_number_of_images():
    x, given = inputs(5), variables()
    found = make(2, train=False).apply(given, x)
    params, stats = given["params"], given["batch_stats"]
    slope = params["scale"] / np.sqrt(stats["var"] + EPSILON)
    expected = (x - stats["mean"]) * slope + params["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_frozen_statistics_stay_whatever_the_group():
    module = ConvNorm(3, Normalization(DECAY, EPSILON, frozen=True, group=2))
    x = inputs()
    given = module.init(jax.random.key(0), x, False)
    found, changed = module.apply(given, x, True, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], given["batch_stats"])
    np.testing.assert_array_equal(found, module.apply(given, x, False))


def test_half_precision_keeps_statistics_in_single():
    x, given = inputs() + 100, variables()
    module = make(2, dtype=jnp.bfloat16)
    found, changed = module.apply(given, x.astype(jnp.bfloat16), mutable=["batch_stats"])
    assert found.dtype == jnp.bfloat16
    expected, averages = by_numpy(np.asarray(x.astype(jnp.bfloat16), np.float32), 2, given)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(changed["batch_stats"]["mean"], averages["mean"], rtol=1e-4)


def test_a_group_that_does_not_divide_is_an_error():
    with pytest.raises(
        DeepLabError, match="ghost_batch_size=4 does not divide the batch of 6 images"
    ):
        make(4).apply(variables(), inputs(), mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("shape", "group", "legal"),
    [
        ((1, 1, 1, 3), 0, False),
        ((4, 1, 1, 3), 1, False),
        ((4, 1, 1, 3), 2, True),
        ((1, 1, 2, 3), 0, True),
        ((4, 2, 1, 3), 1, True),
    ],
)
def test_one_value_per_channel_cannot_be_trained_on(shape, group, legal):
    module = ConvNorm(5, Normalization(DECAY, EPSILON, group=group), kernel_size=1)
    images = jnp.ones(shape)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, False))

    def run(module, train):
        return jax.eval_shape(
            lambda given: module.apply(given, images, train, mutable=["batch_stats"]), shapes
        )

    run(module, False)
    run(module.clone(normalization=Normalization(DECAY, EPSILON, frozen=True, group=group)), True)
    if legal:
        run(module, True)
        return
    with pytest.raises(DeepLabError, match="one value per channel"):
        run(module, True)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_for_several_devices_equals_that_of_flax(train):
    """Outputs, moving averages, and the gradients of inputs, scale and bias."""
    settings = {"use_running_average": not train, "momentum": DECAY, "epsilon": EPSILON}
    weights = np.random.default_rng(2).normal(size=inputs().shape)

    def computed(layer):
        def total(x, params, stats):
            outputs, changed = layer.apply(
                {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"]
            )
            return (outputs * weights).sum(), (outputs, changed)

        given = jax.tree.map(jnp.float64, variables())
        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
            jnp.float64(inputs()), given["params"], given["batch_stats"]
        )

    with jax.enable_x64(True):
        found, expected = (
            computed(make(**settings, dtype=jnp.float64, param_dtype=jnp.float64))
            for make in (ShardedBatchNorm, nn.BatchNorm)
        )
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-12),
        found,
        expected,
    )
