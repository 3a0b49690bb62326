"""The canvas that an image is padded to: its size follows from the image alone, its fill is 0."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables
from selection import slow_unless

from deeplab_jax.data import Augmentation
from deeplab_jax.data.augmentation import augment
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.padding import canvas_size
from deeplab_jax.models import Architecture, create_model
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checks import check_crop_size

# The means as their publishers have them, RGB, rounded.
FILLS = {
    "minus_one_one": (127, 127, 127),
    "mean": (123, 116, 103),
    "vgg_mean": (124, 117, 104),
    "mean_std": (124, 116, 104),
    "caffe_bgr": (123, 117, 104),
    "none": (0, 0, 0),
}
MSC = (1, 0.75, 0.5)


class Network:
    """What `canvas_size` reads of a network."""

    def __init__(self, **fields):
        self.architecture = Architecture("resnet_18", **fields)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 0.75, 1.0), (0.3, 1.0)])
def test_canvases_contain_the_image_and_fit_the_network(align_corners, scales):
    network = Network(output_stride=8, atrous_rates=(12, 24, 36), align_corners=align_corners)
    extra = int(align_corners)
    for size in itertools.product((1, 8, 9, 64, 375, 500, 513, 1080), repeat=2):
        canvas = canvas_size(network, size, scales=scales)
        assert canvas[0] >= size[0]
        assert canvas[1] >= size[1]
        step = 32 if scales == (0.5, 0.75, 1.0) else 8
        counts = [(side - extra) // step for side in canvas]
        assert [count * step + extra for count in counts] == list(canvas)
        # A power of two, or three halves of one.
        assert all(
            (2 * count // 3 if count % 3 == 0 else count).bit_count() == 1 for count in counts
        )
        # A canvas needs no other canvas.
        assert canvas_size(network, canvas, scales=scales) == canvas


def test_usual_splits_share_few_canvases():
    """At most 8 for cameras and for photographs of one long side, as VOC's."""
    network = Network()
    shorter = (281, 332, 333, 334, 335, 366, 374, 375, 376, 400, 442, 500)
    voc = [(side, 500) for side in shorter] + [(500, side) for side in shorter]
    assert len({canvas_size(network, size) for size in voc}) <= 8
    assert canvas_size(network, (1024, 2048)) == (1025, 2049)
    assert canvas_size(network, (360, 480)) == (385, 513)
    assert {canvas_size(network, size, (513, 513)) for size in voc} == {(513, 513)}


def test_smaller_images_get_the_minimum_and_larger_ones_at_least_it():
    network = Network()
    assert canvas_size(network, (20, 20), (360, 480)) == (369, 481)
    assert canvas_size(network, (369, 481), (360, 480)) == (369, 481)
    height, width = canvas_size(network, (100, 500), (360, 480))
    assert (height, width) == (369, 513)


@pytest.mark.parametrize(
    "preprocessing", slow_unless(("minus_one_one", "caffe_bgr").__contains__, FILLS)
)
def test_a_padded_image_gives_the_logits_of_a_canvas_filled_with_the_mean(preprocessing):
    model = create_model(
        "deeplab_v3",
        backbone="mobilenet_v2",
        depth_multiplier=0.25,
        num_classes=4,
        preprocessing=preprocessing,
    )
    check_logits_on_a_canvas(model, FILLS[preprocessing], (97, 65))


@pytest.mark.slow
def test_multi_scale_networks_are_padded_for_every_scale():
    model = create_model(
        "deeplab_v2", backbone="resnet_18", num_classes=4, multi_scale=MSC, output_stride=8
    )
    assert model.architecture.preprocessing == "caffe_bgr"
    # At 97 × 65 the half-scale map would be 49 × 33, at 73 × 57 it would not be k·8 + 1.
    check_logits_on_a_canvas(model, FILLS["caffe_bgr"], (97, 65))
    height, width = canvas_size(model, (375, 500))
    for side, scale in itertools.product((height, width), MSC):
        assert (side - 1) * scale % 8 == 0


def check_logits_on_a_canvas(model, fill, canvas):
    variables = random_variables(model, jax.ShapeDtypeStruct((1, *canvas, 3), jnp.uint8))
    image = np.random.default_rng(1).integers(0, 256, (70, 52, 3), dtype=np.uint8)
    predictor = Predictor(model, variables, "abcd", [(0, 0, 0)] * 4)
    padded = np.empty((1, *canvas, 3), np.uint8)
    padded[...] = fill
    padded[0, :70, :52] = image
    # Folded, so that only the canvas can differ.
    folded, parameters = predictor.network.model, predictor.network.variables
    expected = np.asarray(jax.jit(folded.apply)(parameters, padded))[0, :70, :52]
    np.testing.assert_allclose(
        predictor.logits(image), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    tiles = predictor.with_options(InferenceOptions(tile=canvas, overlap=0))
    np.testing.assert_allclose(
        tiles.logits(image), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_crops_are_filled_with_the_mean(rotation):
    example = {
        "image": np.zeros((9, 9, 3), np.uint8),
        "label": np.zeros((9, 9), np.uint8),
        "image_id": "zeros",
    }
    options = Augmentation(
        (40, 40), 1.0, 1.0, rotation=rotation, flip=False, fill=FILLS["mean_std"]
    )
    crop = augment(example, np.random.default_rng(0), options)
    outside = crop["label"] == 255
    assert outside.sum() > 800
    # Turned crops blend the border's pixels.
    far = outside & ~np.roll(~outside, 1, 0) & ~np.roll(~outside, 1, 1)
    assert (np.median(crop["image"][far], axis=0) == FILLS["mean_std"]).all()


def test_crop_sizes_suit_every_scale_of_the_network():
    network = Network(output_stride=8, atrous_rates=(12, 24, 36), multi_scale=MSC)
    check_crop_size((321, 353), network.architecture, True, Reporter())
    with pytest.raises(DeepLabError, match=r"329.*32") as error:
        check_crop_size((329, 321), network.architecture, True, Reporter())
    assert "321" in str(error.value)
    assert "353" in str(error.value)
