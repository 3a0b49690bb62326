"""Post-training quantisation, and training that sees the rounding."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CLASSES, describe, images, logits, stored

from deeplab_jax import checkpointing, inference, ops, sharing
from deeplab_jax.compression.calibration import calibration_images
from deeplab_jax.compression.effects import costs
from deeplab_jax.compression.quantization import calibrate, quantize
from deeplab_jax.data import ArrayDataset
from deeplab_jax.data.folds import evenly_spaced
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers.integers import rounded


def by_hand(levels, zero_point, kernel, stride, rate, pad, depthwise):
    """Sums of products of whole numbers, one output at a time."""
    values = np.pad(levels - zero_point, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    size = kernel.shape[0]
    reach = (size - 1) * rate + 1
    height, width = ((side - reach) // stride + 1 for side in values.shape[1:3])
    out = np.zeros((len(values), height, width, kernel.shape[3]), np.int64)
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            window = values[:, top : top + reach : rate, left : left + reach : rate]
            product = "nijc,ijc->nc" if depthwise else "nijc,ijcd->nd"
            weights = kernel[:, :, 0] if depthwise else kernel
            out[:, row, column] = np.einsum(product, window, weights)
    return out


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "rate", "pad", "depthwise"),
    [(1, 1, 1, 0, False), (3, 2, 1, 1, False), (3, 1, 2, 2, True), (3, 2, 3, 3, True)],
)
def test_convolution_in_integers_is_exact(size, stride, rate, pad, depthwise, portable):
    random = np.random.default_rng(0)
    levels = random.integers(-128, 128, (2, 7, 10, 5))
    kernel = random.integers(-127, 128, (size, size, 1 if depthwise else 5, 5))
    expected = by_hand(levels, -77, kernel, stride, rate, pad, depthwise)

    def convolve(levels):
        return ops.integer_convolution(
            levels,
            jnp.int8(-77),
            jnp.asarray(kernel, jnp.int8),
            stride=stride,
            rate=rate,
            padding=((pad, pad), (pad, pad)),
            groups=5 if depthwise else 1,
        )

    given = jnp.asarray(levels, jnp.float32)
    if portable:
        with ops.dispatching(export=True):
            found = convolve(given)
    else:
        found = convolve(given)
    np.testing.assert_array_equal(found, expected)


def test_levels_are_rounded_and_clipped():
    given = jnp.array([-9.0, -0.26, -0.24, 0.0, 0.74, 99.0])
    levels = ops.quantize(given, jnp.float32(0.5), jnp.int8(-3))
    assert levels.tolist() == [-21, -4, -3, -3, -2, 127]
    assert ops.quantize(-given * 99, jnp.float32(0.5), jnp.int8(-3)).min() == -128


@pytest.fixture(scope="module")
def int8():
    return quantize(stored("mobilenet_v2"), [images(2), images(2, seed=1)], "noise")


# test_a_quantised_model_is_stored_small_and_loads compares class maps, too.
@pytest.mark.slow
def test_a_quantised_network_is_near_the_float_one(int8):
    float_model, batches = stored("mobilenet_v2"), [images(2, seed=seed) for seed in range(2, 6)]
    expected, found = (
        np.concatenate([logits(model, batch) for batch in batches]) for model in (float_model, int8)
    )
    assert np.abs(found - expected).mean() < 0.1 * expected.std()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_kernels_are_int8_with_a_scale_for_every_output_channel(int8):
    layer = int8.variables["params"]["backbone"]["layer_3"]["expand"]
    assert layer["kernel"].dtype == np.int8
    assert layer["kernel_scale"].shape == layer["kernel"].shape[-1:]
    assert np.abs(layer["kernel"].astype(int)).max((0, 1, 2)).min() >= 127
    assert set(int8.variables) == {"params"}


@pytest.mark.slow
def test_training_sees_as_much_rounding_as_the_integers_have():
    float_model, batch = stored("mobilenet_v2"), images(1, seed=3)
    network = float_model.model.clone(kind="rounded")
    expected = logits(float_model, batch)
    integers = logits(quantize(float_model, [batch]), batch)
    found = np.asarray(jax.jit(network.apply)(float_model.variables, batch))
    errors = [np.abs(each - expected).mean() for each in (found, integers)]
    assert 0.3 < errors[0] / errors[1] < 3
    assert np.abs(found - integers).mean() < 2 * errors[1]


def test_rounding_lets_gradients_through():
    given = jnp.linspace(-1, 2, 7)
    slopes = jax.grad(lambda x: jnp.sum(3 * rounded(x, calibration_method="minmax")))(given)
    np.testing.assert_array_equal(slopes, np.full(7, 3.0))


@pytest.mark.slow
def test_ranges_are_means_over_images():
    model = stored("mobilenet_v2")
    batches = [images(1, seed=seed) for seed in range(3)]
    together = calibrate(model.model, model.variables, batches)
    each = [calibrate(model.model, model.variables, [batch]) for batch in batches]
    for path, extremes in together.items():
        np.testing.assert_allclose(extremes, np.mean([one[path] for one in each], 0), rtol=1e-5)
    assert together[("backbone", "layer_1")][0] < 0 < together[("backbone", "layer_1")][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext", "regnet", "efficientnet", "mobilenet_v4"])
def test_layers_of_timm_are_quantized(name):
    """Grouped convolutions are integers; layer normalization and layer scale are floats."""
    float_model, batch = stored(name), images(2, seed=3)
    found = logits(quantize(float_model, [images(2), batch], "noise"), batch)
    expected = logits(float_model, batch)
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).max()
    assert np.any(found != expected)


def test_a_quantised_model_is_stored_small_and_loads(int8, tmp_path):
    original = stored("mobilenet_v2")
    checkpointing.write_model(tmp_path / "float", original.description, original.variables)
    checkpointing.write_model(tmp_path / "int8", int8.description, int8.variables)
    read = checkpointing.read_model(tmp_path / "int8")
    assert read.description.overrides["quantization"] == "int8"
    assert read.description.source["quantized"]["calibrated_on"] == "noise"
    predictor = inference.load(tmp_path / "int8")
    image = images(1, seed=4)[0, :30]
    expected = inference.load(tmp_path / "float")(image)
    assert (predictor(image) == expected).mean() > 0.9
    sharing.write_shared_directory(tmp_path / "shared", int8, None, sharing.CardNotes())
    np.testing.assert_array_equal(inference.load(tmp_path / "shared")(image), predictor(image))
    assert "Quantized: weights int8" in (tmp_path / "shared" / "README.md").read_text("utf-8")
    large, small = (costs(inference.load(tmp_path / name), (33, 49)) for name in ("float", "int8"))
    # Of so narrow a network scales and biases are much; of the published one they are a tenth.
    assert small["array_bytes"] < 0.45 * large["array_bytes"]
    assert small["macs"] == large["macs"]


def test_unsupported_networks_are_not_quantized(int8, monkeypatch):
    with pytest.raises(DeepLabError, match="already quantized"):
        quantize(int8, [images(1)])
    with pytest.raises(DeepLabError, match="at least one image"):
        quantize(stored("mobilenet_v2"), [])
    with pytest.raises(DeepLabError, match="cannot be trained"):
        int8.model.apply(int8.variables, images(1), train=True)
    with pytest.raises(DeepLabError, match="unknown quantization"):
        describe("mobilenet_v2", quantization="int4").create_model()
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(DeepLabError, match=r"deeplab_jax\[quantization\]"):
        quantize(stored("mobilenet_v2"), [images(1)])


def test_calibration_images_are_spread_over_the_data_set():
    many = [np.full((20 + i, 30, 3), i, np.uint8) for i in range(10)]
    masks = [np.zeros(image.shape[:2], np.uint8) for image in many]
    dataset = ArrayDataset(many, masks, class_names=CLASSES)
    assert [evenly_spaced(dataset, 4)[i]["image"][0, 0, 0] for i in range(4)] == [0, 2, 5, 7]
    found = list(calibration_images(dataset, stored("mobilenet_v2").model, limit=3))
    assert [batch.shape for batch in found] == [(1, 33, 33, 3)] * 3
    assert [batch[0, 0, 0, 0] for batch in found] == [0, 3, 6]
