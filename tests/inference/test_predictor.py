import numpy as np
import pytest
from stand_ins import NUM_CLASSES, RedReader, SizeReader, noise

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions, Predictor, load
from deeplab_jax.inference.forward import forward_pass, only_class_map
from deeplab_jax.inference.padding import padded_size
from deeplab_jax.models import Architecture

NAMES = ("sky", "tree", "<road>", "car")


def make_predictor(model=None, inference_size=None):
    palette = bit_interleaved_palette(NUM_CLASSES)
    return Predictor(model or RedReader(), {}, NAMES, palette, inference_size)


@pytest.mark.parametrize("size", [(1, 1), (16, 17), (33, 40), (64, 129)])
def test_class_map_and_probabilities_have_the_images_own_size(size):
    image = noise(*size)
    class_map = make_predictor()(image)
    assert class_map.dtype == np.int32
    np.testing.assert_array_equal(class_map, image[..., 0] % 4)
    prediction = make_predictor().predict(image)
    np.testing.assert_array_equal(prediction.class_map, class_map)
    assert prediction.probabilities.dtype == np.float32
    odds = np.exp((image[..., 1] + 1.0) / 64)
    own = np.take_along_axis(prediction.probabilities, class_map[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(own, odds / (odds + 3), rtol=1e-5)
    np.testing.assert_allclose(prediction.probabilities.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [InferenceOptions(), InferenceOptions(tile=(65, 65)), InferenceOptions(crf="default")],
)
def test_results_are_writable_and_do_not_retain_the_padded_batch(options):
    predictor = make_predictor(inference_size=(129, 129)).with_options(options)
    image = noise(20, 30)
    prediction = predictor.predict(image)
    for result in (
        prediction.class_map,
        prediction.probabilities,
        predictor(image),
        predictor.logits(image),
    ):
        assert result.flags.writeable
        owner = result
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        assert owner.nbytes < 2 * result.nbytes


@pytest.mark.parametrize(
    ("size", "minimum", "align_corners", "expected"),
    [
        ((1, 1), None, True, (17, 17)),
        ((17, 18), None, True, (17, 33)),
        ((375, 500), (513, 513), True, (513, 513)),
        ((360, 480), (257, 257), True, (369, 481)),
        ((360, 481), None, False, (368, 496)),
        ((1, 16), None, False, (16, 16)),
    ],
)
def test_padded_size(size, minimum, align_corners, expected):
    model = RedReader(Architecture("mobilenet_v2", align_corners=align_corners))
    assert padded_size(model, size, minimum) == expected


def test_a_batch_of_mixed_sizes_is_what_each_image_gives_alone():
    images = [noise(*size) for size in [(20, 30), (60, 10), (21, 29), (33, 33), (20, 30)]]
    predictor = make_predictor(SizeReader(), inference_size=(20, 50))
    together = predictor.predict_batch(images)
    for image, class_map in zip(images, together, strict=True):
        np.testing.assert_array_equal(class_map, predictor(image))
    assert {int(class_map[0, 0]) for class_map in together} == {0, 2}
    assert predictor.predict_batch([]) == []


def test_images_up_to_the_inference_size_share_one_compilation():
    forward_pass.cache_clear()
    predictor = make_predictor(inference_size=(50, 60))
    for size in [(20, 30), (49, 61), (1, 65)]:
        predictor(noise(*size))
    compiled = forward_pass(predictor.network.model, (1.0,), False, only_class_map, None)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[0, 0, 0]],
        "photo.jpg",
    ],
)
def test_non_images_are_refused(image):
    with pytest.raises(DeepLabError, match="an image must"):
        make_predictor()(image)


def test_a_prediction_shows_itself_in_a_notebook():
    image = noise(40, 50)
    image[..., 0] = 1
    image[:4, :, 0] = 2
    prediction = make_predictor().predict(image)
    assert prediction.legend == {"tree": (128, 0, 0), "<road>": (0, 128, 0)}
    assert prediction.shares == {"tree": 0.9, "<road>": 0.1}
    assert prediction._repr_png_().startswith(b"\x89PNG")
    page = prediction._repr_html_()
    assert "&lt;road&gt; 10.0" in page
    assert "<road>" not in page


def test_pixels_without_a_class_are_not_in_the_legend():
    image = noise(40, 50)
    image[..., 0] = 1
    prediction = make_predictor().predict(image)
    prediction.class_map[:10] = 255
    prediction.class_map[10:20] = 65535
    assert prediction.shares == {"tree": 0.5}
    np.testing.assert_array_equal(prediction.overlay[2:8], image[2:8])
    assert "tree 50.0" in prediction._repr_html_()


def test_an_unknown_path_is_named(tmp_path):
    with pytest.raises(DeepLabError, match="nowhere"):
        load(tmp_path / "nowhere")
