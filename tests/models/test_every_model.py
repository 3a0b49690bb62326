"""Every architecture on every backbone at every output stride, by shapes alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from random_variables import random_variables

from deeplab_jax import ops
from deeplab_jax.backbones import BACKBONES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model, list_models

ODD, EVEN = (65, 97), (64, 90)
# Enough to meet every kind of stem, unit and head; the rest only takes longer.
QUICK = {
    ("deeplab_v3", "mobilenet_v2", 8, ODD),
    ("deeplab_v3", "resnet_50", 16, EVEN),
    ("deeplab_v3", "resnet_50_beta", 32, ODD),
    ("deeplab_v3plus", "mobilenet_v2", 4, EVEN),
    ("deeplab_v3plus", "mobilenet_v2", 32, EVEN),
    ("deeplab_v3plus", "resnet_50_beta", 16, EVEN),
    ("deeplab_v3plus", "resnet_101", 8, ODD),
}
EVERY = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in itertools.product(list_models(), BACKBONES, (4, 8, 16, 32), (ODD, EVEN))
]


def shapes(model, size, **options):
    """Returns what the model gives for two images of `size`, traced but not compiled."""
    image = jax.ShapeDtypeStruct((2, *size, model.architecture.in_channels), jnp.uint8)
    with ops.portable():
        outputs, _ = jax.eval_shape(
            lambda x: model.init_with_output(jax.random.key(0), x, **options), image
        )
    return outputs


@pytest.mark.parametrize(("architecture", "backbone", "output_stride", "size"), EVERY)
def test_logits_are_float32_and_as_large_as_the_image(architecture, backbone, output_stride, size):
    model = create_model(architecture, backbone=backbone, output_stride=output_stride)
    logits, maps = shapes(model, size, endpoints=True)
    assert (logits.shape, logits.dtype) == ((2, *size, 21), jnp.float32)
    assert maps["output"].shape[1:3] == tuple(-(-length // output_stride) for length in size)
    for feature in BACKBONES[backbone].low_level:
        assert maps[feature.name].shape[-1] == feature.channels
    finest = BACKBONES[backbone].low_level[0]
    stride = output_stride if architecture == "deeplab_v3" else finest.stride
    assert maps["scores"].shape[1:3] == tuple(-(-length // stride) for length in size)


def test_bfloat16_computes_in_it_and_gives_float32_logits():
    model = create_model("deeplab_v3plus", backbone="mobilenet_v2", dtype="bfloat16")
    logits, maps = shapes(model, ODD, endpoints=True)
    assert (logits.dtype, maps["output"].dtype) == (jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize("shape", [(1, 33, 33, 4), (33, 33, 3), (1, 33, 33, 1)])
def test_images_of_another_form_are_refused(shape):
    model = create_model("deeplab_v3", backbone="mobilenet_v2")
    with pytest.raises(DeepLabError, match=r"must be \[N, H, W, 3\], got "):
        model.init(jax.random.key(0), jnp.zeros(shape, jnp.uint8))


def test_an_example_does_not_see_its_neighbours():
    small = {"depth_multiplier": 0.25, "aspp_channels": 8, "decoder_convs": ((3, 8),)}
    model = create_model("deeplab_v3plus", backbone="mobilenet_v2", **small)
    image, other = np.random.default_rng(0).integers(0, 256, (2, 33, 49, 3), dtype=np.uint8)
    batch = np.stack([image, other, image])
    first, second, third = run_once(model.apply, random_variables(model, batch), batch)
    assert np.std(first - second) > 0.01
    np.testing.assert_allclose(first, third, rtol=0, atol=1e-5 * np.abs(first).max())
