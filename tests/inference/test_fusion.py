"""Scales and flips against NumPy: resized, convolved, mirrored back, resized, fused."""

import brute_force
import numpy as np
import pytest
import scipy.special
from stand_ins import NUM_CLASSES, Convolution, RedReader, noise, random_dataset

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.evaluation import evaluate
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import MAXIMUM, MEAN, fusion_rule
from deeplab_jax.inference.padding import padded_size, scaled_size
from deeplab_jax.models import Architecture

VARIABLES = {
    "params": {
        "Conv_0": {
            "kernel": np.random.default_rng(3).normal(0, 0.5, (5, 5, 3, 4)).astype(np.float32),
            "bias": np.arange(4, dtype=np.float32) / 8,
        }
    }
}
ARCHITECTURES = {
    "mean": Architecture("mobilenet_v2", num_classes=NUM_CLASSES),
    "half-pixel": Architecture("mobilenet_v2", num_classes=NUM_CLASSES, align_corners=False),
    "summed": Architecture("mobilenet_v2", num_classes=NUM_CLASSES, fusion="sum"),
    "multi-scale": Architecture("mobilenet_v2", num_classes=NUM_CLASSES, multi_scale=(1, 0.5)),
}


def make_predictor(kind, **options):
    palette = bit_interleaved_palette(NUM_CLASSES)
    model = Convolution(ARCHITECTURES[kind])
    return Predictor(model, VARIABLES, "abcd", palette, options=InferenceOptions(**options))


def limited_noise(*size):
    return np.minimum(noise(*size), 200)


def resize(inputs, size, align_corners):
    rows = brute_force.interpolation(inputs.shape[0], size[0], align_corners)
    columns = brute_force.interpolation(inputs.shape[1], size[1], align_corners)
    return np.einsum("Hh,Ww,hwc->HWc", rows, columns, inputs)


def convolve(image):
    parameters = VARIABLES["params"]["Conv_0"]
    padded = np.pad(image / 255, ((2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
    return np.einsum("hwcij,ijcd->hwd", windows, parameters["kernel"]) + parameters["bias"]


def expected_probabilities(image, kind, scales, flip):
    """Follows the papers' evaluation, step by step."""
    align_corners = kind != "half-pixel"
    height, width = image.shape[:2]
    # 16 and the scales' quarters: 64; plus 1 where corners align.
    extra = 1 if align_corners else 0
    step = 64 if any(scale % 0.5 for scale in scales) else 32
    size = [-(-(side - extra) // step) * step + extra for side in (height, width)]
    padded = np.full((*size, 3), 127.0)
    padded[:height, :width] = image
    results = []
    for scale in scales:
        if align_corners:
            small = [int((side - 1) * scale + 1) for side in size]
        else:
            small = [round(side * scale) for side in size]
        scaled = resize(padded, small, align_corners)
        results.append(resize(convolve(scaled), size, align_corners))
        if flip:
            mirrored = convolve(scaled[:, ::-1])[:, ::-1]
            results.append(resize(mirrored, size, align_corners))
    if kind in ("summed", "multi-scale"):
        fused = scipy.special.softmax(np.max(results, axis=0), axis=-1)
    else:
        fused = np.mean([scipy.special.softmax(logits, axis=-1) for logits in results], axis=0)
    return fused[:height, :width]


@pytest.mark.parametrize(
    ("kind", "scales", "flip"),
    [
        *((kind, (0.5, 1, 1.25), True) for kind in ARCHITECTURES),
        ("mean", (0.75,), False),
        ("summed", (1.5, 0.5), False),
    ],
)
def test_fused_results_agree_with_numpy(kind, scales, flip):
    image = limited_noise(37, 50)
    predictor = make_predictor(kind, scales=scales, flip=flip)
    prediction = predictor.predict(image)
    expected = expected_probabilities(image, kind, scales, flip)
    np.testing.assert_allclose(prediction.probabilities, expected, atol=2e-5)
    two_best = np.sort(expected, axis=-1)[..., -2:]
    clear = two_best[..., 1] - two_best[..., 0] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(prediction.class_map[clear], expected.argmax(-1)[clear])
    np.testing.assert_array_equal(predictor(image), prediction.class_map)
    again = scipy.special.softmax(predictor.logits(image), axis=-1)
    np.testing.assert_allclose(again, prediction.probabilities, atol=1e-5)


def test_flips_change_asymmetric_networks_and_mirror_with_the_image():
    image = limited_noise(33, 33)
    once, twice = make_predictor("mean"), make_predictor("mean", flip=True)
    assert (once(image) != twice(image)).any()
    found = twice.predict(np.ascontiguousarray(image[:, ::-1])).probabilities
    np.testing.assert_allclose(found[:, ::-1], twice.predict(image).probabilities, atol=1e-5)


def test_fusion_follows_the_architecture():
    rules = {kind: fusion_rule(architecture) for kind, architecture in ARCHITECTURES.items()}
    assert rules == {
        "mean": MEAN,
        "half-pixel": MEAN,
        "summed": MAXIMUM,
        "multi-scale": MAXIMUM,
    }


@pytest.mark.parametrize(
    ("size", "scales", "align_corners", "expected"),
    [
        ((500, 375), (0.5, 0.75, 1, 1.25, 1.5, 1.75), True, (513, 385)),
        ((500, 375), (0.5, 1), True, (513, 385)),
        ((360, 480), (0.5, 0.75), True, (385, 513)),
        ((360, 480), (0.3,), True, (369, 481)),
        ((360, 480), (0.75, 1), False, (384, 512)),
    ],
)
def test_scaled_images_are_of_legal_sizes_too(size, scales, align_corners, expected):
    model = RedReader(Architecture("mobilenet_v2", align_corners=align_corners))
    found = padded_size(model, size, scales=scales)
    assert found == expected
    if 0.3 not in scales:
        for scale in scales:
            scaled = scaled_size(model, found, scale)
            assert padded_size(model, scaled) == scaled


def test_evaluation_does_what_the_predictor_does():
    dataset = random_dataset([(20, 31), (33, 33), (40, 7), (1, 50)])
    predictor = make_predictor("mean")
    options = InferenceOptions(scales=(0.5, 1), flip=True)
    one = evaluate(predictor, dataset, options=options, batch_size=1)
    many = evaluate(predictor.with_options(options), dataset, batch_size=3)
    settings = one.pop("settings")
    assert settings["scales"] == [0.5, 1]
    assert settings["flip"] is True
    assert settings["fusion"] == MEAN
    assert settings["padded_sizes"] == [[33, 33], [33, 65], [65, 33]]
    assert many.pop("settings") | {"batch_size": 1} == settings
    assert many == one
    alone, counts = predictor.with_options(options), np.zeros((4, 4), int)
    for index in range(len(dataset)):
        label, found = dataset[index]["label"], alone(dataset[index]["image"])
        np.add.at(counts, (label[label != 255], found[label != 255]), 1)
    assert one["confusion_matrix"] == counts.tolist()
