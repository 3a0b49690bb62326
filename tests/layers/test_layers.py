import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from flax import linen as nn
from flax import traverse_util
from random_variables import random_variables

from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import (
    Classifier,
    ConvNorm,
    Form,
    Normalization,
    SeparableConvNorm,
    check_widths,
)

NORMALIZATION = Normalization(decay=0.9, epsilon=1e-3)
INPUTS = np.random.default_rng(0).normal(size=(2, 8, 7, 4)).astype(np.float32)


def normalized(variables, outputs, activation=nn.relu):
    """Returns batch normalization with the moving averages and the activation, in NumPy."""
    (scale, bias), (mean, var) = (
        [variables[kind]["norm"][name] for name in names]
        for kind, names in (("params", ("scale", "bias")), ("batch_stats", ("mean", "var")))
    )
    return activation((outputs - mean) / np.sqrt(var + NORMALIZATION.epsilon) * scale + bias)


def test_conv_norm_is_convolution_then_normalisation_then_activation():
    module = ConvNorm(5, NORMALIZATION, kernel_size=1)
    variables = random_variables(module, INPUTS, train=False)
    expected = normalized(variables, INPUTS @ variables["params"]["kernel"][0, 0])
    found = run_once(functools.partial(module.apply, train=False), variables, INPUTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_training_uses_the_batch_and_moves_the_averages_by_one_minus_decay():
    module = ConvNorm(5, NORMALIZATION, kernel_size=1, activation=None)
    variables = random_variables(module, INPUTS, train=False)
    train = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    found, changed = run_once(train, variables, INPUTS)
    plain = INPUTS @ variables["params"]["kernel"][0, 0]
    mean, var = plain.mean((0, 1, 2)), plain.var((0, 1, 2))
    for name, batch_value in {"mean": mean, "var": var}.items():
        old = variables["batch_stats"]["norm"][name]
        np.testing.assert_allclose(
            changed["batch_stats"]["norm"][name], 0.9 * old + 0.1 * batch_value, atol=1e-5
        )
    by_batch = variables | {"batch_stats": {"norm": {"mean": mean, "var": var}}}
    expected = normalized(by_batch, plain, activation=lambda x: x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("same_padding", "agrees"), [(False, True), (True, False)])
def test_only_symmetric_padding_subsamples_on_even_sizes(same_padding, agrees):
    strided, dense = (
        ConvNorm(5, NORMALIZATION, stride=stride, same_padding=same_padding) for stride in (2, 1)
    )
    variables = random_variables(dense, INPUTS, train=False)

    def both(variables, inputs):
        return strided.apply(variables, inputs, False), dense.apply(variables, inputs, False)

    small, large = run_once(both, variables, INPUTS)
    assert small.shape == (2, 4, 4, 5)
    assert np.allclose(small, large[:, ::2, ::2], atol=1e-5) == agrees


def test_separable_convolution_normalises_and_rectifies_between():
    module = SeparableConvNorm(3, NORMALIZATION, rate=2)
    variables = random_variables(module, INPUTS, train=False)
    parts = {
        name: {kind: variables[kind][name] for kind in variables} for name in variables["params"]
    }
    assert set(parts) == {"depthwise", "pointwise"}
    depthwise = ConvNorm(4, NORMALIZATION, rate=2, depthwise=True)

    def both(variables, part, inputs):
        return module.apply(variables, inputs, False), depthwise.apply(part, inputs, False)

    found, between = run_once(both, variables, parts["depthwise"], INPUTS)
    assert between.min() == 0
    expected = normalized(
        parts["pointwise"], between @ parts["pointwise"]["params"]["kernel"][0, 0]
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "output"),
    [
        (lambda dtype: ConvNorm(5, NORMALIZATION, form=Form(dtype)), "bfloat16"),
        (lambda dtype: Classifier(5, form=Form(dtype)), "float32"),
    ],
    ids=["ConvNorm", "Classifier"],
)
def test_bfloat16_keeps_float32_parameters_and_logits(module, output):
    module = module(jnp.bfloat16)
    options = {"train": False} if isinstance(module, ConvNorm) else {}
    outputs, variables = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, **options), INPUTS
    )
    assert outputs.dtype == output
    dtypes = {leaf.dtype for leaf in traverse_util.flatten_dict(variables).values()}
    assert dtypes == {jnp.dtype("float32")}


def test_the_classifier_adds_its_bias_and_starts_small():
    module = Classifier(7)
    variables = random_variables(module, INPUTS)
    params = variables["params"]
    found = run_once(module.apply, variables, INPUTS)
    np.testing.assert_allclose(found, INPUTS @ params["kernel"][0, 0] + params["bias"], atol=1e-5)
    wide = jnp.zeros((1, 1, 1, 512))
    fresh = run_once(module.init, jax.random.key(0), wide)["params"]
    assert np.std(fresh["kernel"]) == pytest.approx(0.01, rel=0.15)
    assert not np.any(fresh["bias"])


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        (
            (("backbone/conv", 5), ("backbone/con", 4)),
            r"'backbone/con'; did you mean 'backbone/con",
        ),
        ((("backbone/conv", 4),), r"'backbone/conv' must have 5 output channels .* got 4"),
    ],
)
def test_widths_that_the_network_does_not_have_are_refused(widths, message):
    params = {"backbone": {"conv": {"kernel": np.zeros((1, 1, 3, 5), np.float32)}}}
    with pytest.raises(DeepLabError, match=message):
        check_widths(Form(widths=widths), params)
