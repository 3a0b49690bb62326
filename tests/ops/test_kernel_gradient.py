"""Kernel gradients by matrix products equal those of XLA's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once

from deeplab_jax import ops
from deeplab_jax.ops.kernel_gradient import kernel_gradient, products_over_maps
from deeplab_jax.ops.xla_convolution import Window

RANDOM = np.random.default_rng(0)


def with_gradients(rate, padding):
    def outputs_and_gradients(inputs, kernel):
        outputs, pull = jax.vjp(
            lambda x, k: ops.convolution(x, k, rate=rate, padding=padding), inputs, kernel
        )
        return outputs, *pull(jnp.cos(outputs))

    return outputs_and_gradients


@pytest.mark.parametrize(
    ("shape", "size", "rate", "padding"),
    [
        ((2, 9, 12, 5), 3, 1, ((1, 1), (1, 1))),
        ((1, 40, 65, 3), 3, 2, ((2, 2), (2, 2))),
        ((2, 37, 33, 4), 5, 1, ((2, 2), (2, 2))),
        ((1, 13, 7, 2), 3, (2, 1), ((2, 2), (1, 1))),
        ((1, 8, 9, 2), 2, 1, ((0, 0), (0, 0))),
        ((1, 20, 21, 2), 3, 1, ((0, 3), (2, 0))),
        ((1, 2, 1500, 2), 3, 1, ((1, 1), (1, 1))),
        ((1, 1, 1, 2), 3, 1, ((1, 1), (1, 1))),
    ],
)
def test_equals_the_plain_convolution(shape, size, rate, padding):
    inputs = RANDOM.normal(size=shape)
    kernel = RANDOM.normal(size=(size, size, shape[-1], 4))
    with jax.enable_x64(True):
        banded = run_once(with_gradients(rate, padding), inputs, kernel)
        with ops.dispatching(export=True):
            plain = run_once(with_gradients(rate, padding), inputs, kernel)
    for one, other in zip(banded, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "features", "size", "rate", "padding"),
    [
        ((2, 9, 12, 5), 4, 3, 2, ((2, 2), (2, 2))),
        ((2, 9, 12, 3), 7, 3, 2, ((2, 2), (2, 2))),
        ((1, 13, 7, 2), 3, 3, (2, 1), ((2, 2), (1, 1))),
        ((1, 20, 21, 2), 2, 2, 3, ((0, 5), (4, 0))),
        ((1, 20, 21, 2), 3, 3, 3, ((0, 1), (2, 0))),
        ((1, 5, 6, 3), 2, 3, 36, ((36, 36), (36, 36))),
        ((1, 5, 6, 2), 3, 3, 36, ((36, 36), (36, 36))),
        ((1, 1, 1, 2), 2, 3, 2, ((2, 2), (2, 2))),
        ((1, 10, 7, 2), 4, 3, (3, 2), ((3, 3), (1, 0))),
        ((1, 5, 6, 3), 4, 2, 36, ((36, 36), (36, 36))),
        ((2, 8, 9, 2), 4, 3, 2, ((-1, 2), (1, 1))),
    ],
)
def test_products_over_maps_equal_the_plain_convolution(
    as_on_gpus, shape, features, size, rate, padding
):
    inputs = RANDOM.normal(size=shape)
    kernel = RANDOM.normal(size=(size, size, shape[-1], features))
    with jax.enable_x64(True):
        assert "dot_general" in str(jax.make_jaxpr(with_gradients(rate, padding))(inputs, kernel))
        products = run_once(with_gradients(rate, padding), inputs, kernel)
        with ops.dispatching(export=True):
            plain = run_once(with_gradients(rate, padding), inputs, kernel)
    for one, other in zip(products, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_no_window_strides_over_the_map_on_gpus(platform):
    def windows(rate, platform):
        program = jax.jit(with_gradients(rate, ((rate, rate), (rate, rate))))
        traced = program.trace(jnp.ones((2, 40, 65, 8)), jnp.ones((3, 3, 8, 8)))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.convolution"), text.count(f"stride = [{rate}, {rate}]")

    # cuDNN has a kernel's gradient only where XLA sees one: a window that strides is none.
    assert windows(2, "tpu") == (3, 1)
    assert windows(2, platform) == (2, 0)
    assert windows(1, platform)[0] == 3


def test_no_convolution_has_the_map_as_its_window():
    def convolutions():
        program = with_gradients(1, ((1, 1), (1, 1)))
        text = jax.jit(program).lower(jnp.ones((2, 40, 65, 8)), jnp.ones((3, 3, 8, 8))).as_text()
        return text.count("stablehlo.convolution")

    # Outputs and the inputs' gradient are convolutions, the kernel's is not.
    assert convolutions() == 2
    with ops.dispatching(export=True):
        assert convolutions() == 3


@pytest.mark.parametrize(
    ("convolve", "kernel"),
    [(ops.convolution, (3, 3, 8, 8)), (ops.depthwise_convolution, (3, 3, 1, 8))],
    ids=["dense", "depthwise"],
)
def test_a_known_platform_needs_no_branch_and_a_sharded_batch_no_loop(convolve, kernel):
    def count(kind):
        def total(inputs, kernel):
            return convolve(inputs, kernel, padding=((1, 1), (1, 1))).sum()

        operands = jnp.ones((4, 40, 65, 8)), jnp.ones(kernel)
        text = jax.jit(jax.grad(total, 1)).lower(*operands).as_text()
        return text.count(f"stablehlo.{kind}")

    assert (count("while") > 0, count("case") > 0) == (True, True)
    with ops.dispatching(platform="cpu"):
        assert (count("while") > 0, count("case")) == (True, 0)
    with ops.dispatching(platform="cpu", batch_sharded=True):
        assert (count("while"), count("case")) == (0, 0)
    with ops.dispatching(platform="tpu", batch_sharded=True):
        assert (count("case"), count("convolution") > 0) == (0, True)
    assert count("while") > 0


@pytest.mark.parametrize("gradient", [kernel_gradient, products_over_maps])
def test_sums_of_bfloat16_are_in_float32(gradient):
    inputs = jnp.ones((1, 64, 64, 1), jnp.bfloat16)
    kernel = jnp.zeros((3, 3, 1, 1), jnp.bfloat16)
    found = gradient(inputs, kernel, inputs, Window(3, (1, 1), ((1, 1), (1, 1))))
    assert found.dtype == jnp.bfloat16
    # Ones added one by one in bfloat16 stay at 256.
    expected = np.outer([63, 64, 63], [63, 64, 63]).astype(jnp.bfloat16)
    np.testing.assert_array_equal(found[:, :, 0, 0], expected)
