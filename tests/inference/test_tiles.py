"""Tiles: each pixel once, deep inside, and the whole image's result where that is possible."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import random_variables
from stand_ins import NUM_CLASSES, Convolution, RedReader, SizeReader, noise

from deeplab_jax import ops
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import forward_pass, only_class_map
from deeplab_jax.inference.tiles import Tiling, run_tiles
from deeplab_jax.models import Architecture, create_model, summarize

HELPERS = pathlib.Path(__file__).parents[1] / "helpers"
EIGHT = Architecture("mobilenet_v2", num_classes=NUM_CLASSES, output_stride=8)
EIGHT_HALF_PIXEL = Architecture(
    "mobilenet_v2", num_classes=NUM_CLASSES, output_stride=8, align_corners=False
)


class Strided(RedReader):
    """A small encoder at output stride 8 with upsampled scores: it sees 1 + 2·23 pixels."""

    architecture: Architecture = EIGHT
    RADIUS = 23

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        hidden = image.astype(jnp.float32) / 255
        # Reaches 1, 2, 4 and, at rate 2, 16 pixels.
        for channels, stride, rate in ((4, 2, 1), (4, 2, 1), (4, 2, 1), (NUM_CLASSES, 1, 2)):
            padding = ((rate, rate), (rate, rate))
            hidden = nn.Conv(channels, (3, 3), stride, padding=padding, kernel_dilation=rate)(
                hidden
            )
        align_corners = self.architecture.align_corners
        return ops.resize_bilinear(hidden, image.shape[1:3], align_corners=align_corners)


def make_predictor(model, variables=None, **options):
    palette = bit_interleaved_palette(NUM_CLASSES)
    options = InferenceOptions(**options)
    return Predictor(model, variables or {}, "abcd", palette, options=options)


@pytest.mark.parametrize("architecture", [EIGHT, EIGHT_HALF_PIXEL])
@pytest.mark.parametrize("overlap", [0, 0.1, 0.2])
@pytest.mark.parametrize("size", [(1, 1), (64, 65), (66, 300), (129, 131), (257, 200), (400, 401)])
def test_every_pixel_is_taken_once_from_deep_inside_a_tile(architecture, overlap, size):
    tiling = Tiling.of(RedReader(architecture), InferenceOptions(tile=(65, 60), overlap=overlap))
    canvas, taken = tiling.canvas(size), np.zeros(tiling.canvas(size), int)
    assert (np.asarray(canvas) >= np.maximum(size, tiling.tile)).all()
    for place in tiling.places(size):
        taken[place.rows.first : place.rows.last, place.columns.first : place.columns.last] += 1
        for span, length, tile in zip(place, canvas, tiling.tile, strict=True):
            assert span.start % 8 == 0
            assert 0 <= span.start <= span.first < span.last <= span.start + tile <= length
            least = overlap * tile - 1
            assert span.first == 0 or span.first - span.start >= least
            assert span.last == length or span.start + tile - span.last >= least
    assert (taken == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (30, 200), (65, 65), (66, 64), (150, 99)])
@pytest.mark.parametrize("overlap", [0, 0.25])
def test_a_network_of_single_pixels_is_exact(size, overlap):
    image = noise(*size)
    predictor = make_predictor(RedReader(), tile=(49, 60), overlap=overlap)
    np.testing.assert_array_equal(predictor(image), image[..., 0] % 4)
    np.testing.assert_array_equal(predictor.predict(image).class_map, image[..., 0] % 4)
    whole = make_predictor(RedReader()).predict(image)
    np.testing.assert_allclose(
        predictor.predict(image).probabilities, whole.probabilities, atol=1e-6
    )


@pytest.mark.parametrize("architecture", [EIGHT, EIGHT_HALF_PIXEL])
@pytest.mark.parametrize("size", [(131, 250), (97, 97), (300, 90)])
def test_overlap_of_the_receptive_fields_radius_is_exact(architecture, size):
    model = Strided(architecture)
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.uint8))
    image = noise(*size)
    side = 97 if architecture.align_corners else 96
    overlap = Strided.RADIUS / side
    tiles = make_predictor(model, variables, tile=(side, side), overlap=overlap)
    canvas = tiles.tiling.canvas(size)
    whole = Predictor(model, variables, "abcd", tiles.palette, inference_size=canvas)
    assert len(tiles.tiling.places(size)) > 1 or size == (97, 97)
    expected = whole.predict(image).probabilities
    np.testing.assert_allclose(tiles.predict(image).probabilities, expected, atol=1e-4)
    if size != (97, 97):
        none = make_predictor(model, variables, tile=(side, side), overlap=0)
        assert np.abs(none.predict(image).probabilities - expected).max() > 1e-3


@pytest.mark.slow
def test_a_deeplab_without_image_pooling_is_exact():
    model = create_model(
        "deeplab_v3",
        backbone="mobilenet_v2",
        head="aspp",
        depth_multiplier=0.35,
        num_classes=NUM_CLASSES,
        atrous_rates=(1, 2),
        aspp_channels=8,
        image_pooling="none",
    )
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.uint8))
    radius = (summarize(model, (257, 257)).receptive_field - 1) / 2
    side = 833
    tiles = make_predictor(model, variables, tile=(side, side), overlap=radius / side)
    image = noise(857, 1201)
    assert len(tiles.tiling.places(image.shape[:2])) > 3
    canvas = tiles.tiling.canvas(image.shape[:2])
    whole = Predictor(model, variables, "abcd", tiles.palette, inference_size=canvas)
    expected = whole.predict(image).probabilities
    found = tiles.predict(image).probabilities
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_all_images_share_one_compiled_tile():
    forward_pass.cache_clear()
    predictor = make_predictor(SizeReader(), tile=(48, 48), overlap=0.1)
    for size in [(10, 10), (49, 49), (100, 170)]:
        assert (predictor(noise(*size)) == 3).all()
    compiled = forward_pass(predictor.network.model, (1.0,), False, only_class_map, None)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("count", [1, 3, 4, 50])
def test_tiles_at_once_do_not_matter(count):
    tiling = Tiling.of(RedReader(), InferenceOptions(tile=(33, 33), overlap=0))
    seen = []

    def forward(tiles):
        seen.append(len(tiles))
        return {"red": tiles[..., 0], "colors": tiles}

    image = noise(70, 101)
    results = run_tiles(tiling, forward, image, tiles_at_once=count)
    np.testing.assert_array_equal(results["red"], image[..., 0])
    np.testing.assert_array_equal(results["colors"], image)
    assert set(seen) == {count}


def test_scales_and_flips_work_on_tiles():
    image, options = noise(70, 90), {"scales": (1, 0.5), "flip": True}
    model = Convolution()
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 9, 9, 3), jnp.uint8))
    whole = make_predictor(model, variables, **options).predict(image)
    one_tile = make_predictor(model, variables, tile=(97, 97), **options).predict(image)
    np.testing.assert_allclose(one_tile.probabilities, whole.probabilities, atol=1e-5)
    assert make_predictor(model, tile=(97, 98), **options).tiling.tile == (97, 129)


@pytest.mark.parametrize(("tile", "overlap", "least"), [((33, 33), 0.4, 81), ((200, 17), 0.1, 49)])
def test_an_overlap_that_leaves_nothing_is_refused(tile, overlap, least):
    with pytest.raises(DeepLabError, match=f"discard all pixels of .*at least {least}x{least}"):
        make_predictor(RedReader(), tile=tile, overlap=overlap)
    make_predictor(RedReader(), tile=(least, least), overlap=overlap)


PROGRAM = """
import resource

import jax
import jax.numpy as jnp
import numpy as np
from random_variables import random_variables
from stand_ins import Convolution

from deeplab_jax.inference import InferenceOptions, Predictor

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model = Convolution()
variables = random_variables(model, jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8))
options = InferenceOptions(tile=(513, 513), overlap=0.05)
predictor = Predictor(model, variables, "abcd", [(0, 0, 0)] * 4, options=options)
small = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), dtype=np.uint8)
expected = predictor(small)
before = peak()
image = np.zeros((4000, 6000, 3), np.uint8)
image[:900, :1400] = small
class_map = predictor(image)
assert class_map.shape == (4000, 6000)
# Away from the small image's border.
assert (class_map[:890, :1390] == expected[:890, :1390]).all()
print(peak() - before)
"""


@pytest.mark.slow
def test_a_large_image_stays_within_the_stated_memory():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(HELPERS), str(HELPERS.parent)]),
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    image_and_class_map = 4000 * 6000 * (3 + 4)
    # What the allocator keeps back from tile to tile.
    assert int(result.stdout) < image_and_class_map + 2**26
