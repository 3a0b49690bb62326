import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once

from deeplab_jax import ops
from deeplab_jax.ops.valid_region import valid_fraction
from deeplab_jax.ops.xla_convolution import Window

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(2, 9, 12, 5))
UNPADDED = ((0, 0), (0, 0))


@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 3)])
def test_equals_loops_over_pixels(stride, rate):
    kernel = RANDOM.normal(size=(3, 3, 5, 4))
    padding = ops.symmetric_padding(3, rate)
    expected = brute_force.convolve(INPUTS, kernel, stride, rate, padding)
    with jax.enable_x64(True):
        found = ops.convolution(INPUTS, kernel, stride=stride, rate=rate, padding=padding)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", [2, 5])
def test_atrous_is_a_dense_convolution_with_holes_in_the_kernel(rate):
    kernel = RANDOM.normal(size=(3, 3, 5, 4))
    with_holes = np.zeros((2 * rate + 1, 2 * rate + 1, 5, 4))
    with_holes[::rate, ::rate] = kernel
    padding = ops.symmetric_padding(3, rate)
    assert padding == ops.symmetric_padding(2 * rate + 1, 1)
    with jax.enable_x64(True):
        atrous = ops.convolution(INPUTS, kernel, rate=rate, padding=padding)
        dense = ops.convolution(INPUTS, with_holes, padding=padding)
    np.testing.assert_allclose(atrous, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("rate", "padding"),
    [
        (4, ops.symmetric_padding(3, 4)),
        (7, ops.symmetric_padding(3, 7)),
        (20, ops.symmetric_padding(3, 20)),
        ((6, 3), ops.symmetric_padding(3, (6, 3))),
        (4, ((1, 8), (5, 0))),
    ],
)
def test_the_sum_over_taps_equals_the_plain_convolution(rate, padding):
    kernel = RANDOM.normal(size=(3, 3, 5, 4))

    def with_gradients(inputs, kernel):
        outputs, pull = jax.vjp(
            lambda x, k: ops.convolution(x, k, rate=rate, padding=padding), inputs, kernel
        )
        return outputs, *pull(jnp.cos(outputs))

    with jax.enable_x64(True):
        assert "dot_general" in str(jax.make_jaxpr(with_gradients)(INPUTS, kernel))
        fast = run_once(with_gradients, INPUTS, kernel)
        with ops.dispatching(export=True):
            plain = run_once(with_gradients, INPUTS, kernel)
    for one, other in zip(fast, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_a_sum_over_taps_in_bfloat16_is_rounded_once():
    kernel, cotangent = RANDOM.normal(size=(3, 3, 5, 4)), RANDOM.normal(size=(2, 9, 12, 4))
    padding = ops.symmetric_padding(3, 4)

    def with_gradients(inputs, kernel, cotangent):
        outputs, pull = jax.vjp(
            lambda x, k: ops.convolution(x, k, rate=4, padding=padding), inputs, kernel
        )
        return outputs, *pull(cotangent)

    narrow = [jnp.asarray(array, jnp.bfloat16) for array in (INPUTS, kernel, cotangent)]
    found = run_once(with_gradients, *narrow)
    exact = run_once(with_gradients, *(array.astype(jnp.float32) for array in narrow))
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_allclose(one.astype(jnp.float32), other, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(("rate", "fraction"), [(12, 0.769), (24, 0.568), (36, 0.398), (1, 0.979)])
def test_fraction_of_multiply_adds_that_meet_pixels(rate, fraction):
    padding = ops.symmetric_padding(3, rate)
    found = valid_fraction((65, 65), Window(3, (rate, rate), padding))
    assert found == pytest.approx(fraction, abs=2e-3)
    assert found == pytest.approx(((1 + 2 * (65 - rate) / 65) / 3) ** 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_product_equals_the_plain_convolution(stride):
    kernel = RANDOM.normal(size=(1, 1, 5, 4))

    def with_gradients(inputs, kernel):
        outputs, pull = jax.vjp(
            lambda x, k: ops.convolution(x, k, stride=stride, padding=UNPADDED), inputs, kernel
        )
        return outputs, *pull(jnp.cos(outputs))

    with jax.enable_x64(True):
        fast = run_once(with_gradients, INPUTS, kernel)
        with ops.dispatching(export=True):
            plain = run_once(with_gradients, INPUTS, kernel)
    expected = brute_force.convolve(INPUTS, kernel, stride, 1, UNPADDED)
    np.testing.assert_allclose(fast[0], expected, rtol=0, atol=1e-12)
    for one, other in zip(fast, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        ((9, 13), 2, ((1, 1), (1, 1))),
        ((8, 13), 2, ((0, 1), (1, 1))),
        ((8, 6), 1, ((1, 1), (1, 1))),
        ((1, 1), 2, ((1, 1), (1, 1))),
    ],
)
def test_same_padding_is_tensorflows(size, stride, expected):
    assert ops.same_padding(size, 3, stride, 1) == expected


def test_symmetric_padding_subsamples_the_convolution_of_stride_1():
    kernel = RANDOM.normal(size=(3, 3, 5, 4))
    padding = ops.symmetric_padding(3, 1)
    strided = brute_force.convolve(INPUTS, kernel, 2, 1, padding)
    np.testing.assert_array_equal(
        strided, brute_force.convolve(INPUTS, kernel, 1, 1, padding)[:, ::2, ::2]
    )
