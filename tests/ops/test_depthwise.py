import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once

from deeplab_jax import ops

PADDINGS = {
    "symmetric": lambda size, kernel_size, stride, rate: ops.symmetric_padding(kernel_size, rate),
    "same": ops.same_padding,
}


def operands(size, channels, kernel_size, stride, rate, padding):
    """Returns random inputs, kernel, cotangent (float64) and the padding as numbers."""
    random = np.random.default_rng(0)
    edges = PADDINGS[padding](size, kernel_size, stride, rate)
    reach = (kernel_size - 1) * rate
    outputs = [
        (length + sum(edge) - reach - 1) // stride + 1
        for length, edge in zip(size, edges, strict=True)
    ]
    inputs = random.normal(size=(2, *size, channels))
    kernel = random.normal(size=(kernel_size, kernel_size, 1, channels))
    return inputs, kernel, random.normal(size=(2, *outputs, channels)), edges


def with_gradients(inputs, kernel, cotangent, **options):
    """Returns the convolution and both gradients, compiled with the selected implementation."""

    def evaluate(inputs, kernel, cotangent):
        outputs, pull = jax.vjp(
            lambda x, k: ops.depthwise_convolution(x, k, **options), inputs, kernel
        )
        return outputs, *pull(cotangent)

    return run_once(evaluate, inputs, kernel, cotangent)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "rate", "padding"),
    [
        ((7, 9), 3, 1, 1, "symmetric"),
        ((7, 9), 3, 2, 1, "same"),
        ((8, 6), 3, 2, 1, "symmetric"),
        ((8, 6), 3, 2, 1, "same"),
        ((9, 8), 3, 1, 3, "symmetric"),
        ((8, 7), 3, 2, 2, "symmetric"),
        ((8, 7), 3, 2, 2, "same"),
        ((9, 8), 5, 2, 1, "same"),
        ((2, 1), 3, 1, 6, "symmetric"),
    ],
)
def test_equals_loops_over_pixels(size, kernel_size, stride, rate, padding):
    *arrays, edges = operands(size, 3, kernel_size, stride, rate, padding)
    expected = brute_force.depthwise(*arrays, stride, rate, edges)
    with jax.enable_x64(True):
        found = with_gradients(*arrays, stride=stride, rate=rate, padding=edges)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "rate", "edges"),
    [
        ((9, 8), 3, 1, 3, ((3, 3), (3, 3))),
        ((8, 7), 3, 2, 2, ((2, 2), (2, 2))),
        ((2, 1), 3, 1, 6, ((6, 6), (6, 6))),
        ((9, 8), 3, 1, (2, 1), ((2, 2), (1, 1))),
        ((9, 8), 3, 1, (3, 2), ((3, 3), (2, 0))),
        ((5, 6), 2, 1, 7, ((7, 7), (7, 7))),
        ((4, 11), 3, 1, 4, ((4, 5), (4, 4))),
    ],
)
def test_atrous_convolutions_on_gpus_equal_the_reference(
    as_on_gpus, size, kernel_size, stride, rate, edges
):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2, *size, 3))
    kernel = random.normal(size=(kernel_size, kernel_size, 1, 3))
    with jax.enable_x64(True):
        with ops.dispatching(export=True):
            outputs = ops.depthwise_convolution(
                inputs, kernel, stride=stride, rate=rate, padding=edges
            )
            arrays = inputs, kernel, random.normal(size=outputs.shape)
            plain = with_gradients(*arrays, stride=stride, rate=rate, padding=edges)
        found = with_gradients(*arrays, stride=stride, rate=rate, padding=edges)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


# The sizes cut the kernel's gradient into bands of several rows, one row and all rows.
@pytest.mark.parametrize(
    ("size", "stride", "rate", "dtype", "tolerance"),
    [
        ((40, 37), 1, 2, "float32", 1e-5),
        ((41, 62), 1, 1, "float32", 1e-5),
        ((24, 33), 2, 1, "float32", 1e-5),
        ((24, 33), 2, 1, "bfloat16", 2e-2),
    ],
)
def test_fast_implementation_equals_the_portable_one(size, stride, rate, dtype, tolerance):
    *arrays, padding = operands(size, 64, 3, stride, rate, "symmetric")
    arrays = [jnp.asarray(array, dtype) for array in arrays]
    options = {"stride": stride, "rate": rate, "padding": padding}
    fast = with_gradients(*arrays, **options)
    with ops.dispatching(export=True):
        plain = with_gradients(*arrays, **options)
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype == dtype
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def test_an_output_in_bfloat16_is_rounded_once():
    inputs, kernel, _, padding = operands((20, 23), 16, 3, 1, 1, "symmetric")
    inputs, kernel = jnp.asarray(inputs, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16)
    found = ops.depthwise_convolution(inputs, kernel, padding=padding)
    wide = inputs.astype(jnp.float32), kernel.astype(jnp.float32)
    exact = ops.depthwise_convolution(*wide, padding=padding)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    "convolve",
    [
        lambda x: ops.depthwise_convolution(x, jnp.ones((3, 3, 1, 4)), padding=((1, 1), (1, 1))),
        lambda x: ops.convolution(x, jnp.ones((1, 1, 4, 4)), padding=((0, 0), (0, 0))),
    ],
    ids=["depthwise", "pointwise"],
)
def test_other_platforms_and_export_get_plain_convolutions(convolve):
    image = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)

    def program(platform):
        lowered = jax.jit(lambda x: convolve(x)).trace(image).lower(lowering_platforms=(platform,))
        return lowered.as_text()

    assert "stablehlo.convolution" not in program("cpu")
    assert "stablehlo.convolution" in program("tpu")
    assert "stablehlo.convolution" in program("cuda")
    with ops.dispatching(export=True):
        assert "stablehlo.convolution" in program("cpu")
    assert "stablehlo.convolution" not in program("cpu")
