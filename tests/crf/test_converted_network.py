"""The CRF on scores of a published network for photographs, where they are least certain."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from crf.exact import exact_crf
from crf.scenes import agreement, widest_choice
from PIL import Image
from pretrained.converted import converted_predictor

from deeplab_jax.crf import PARAMETERS, dense_crf

SIZE = (40, 50)
NETWORK = "weights/deeplabv3_mnv2_voc_513_lut8.mlmodel"
IMAGES = ("2007_000175", "2007_001733", "2007_002046")


@functools.cache
def predictor(shared):
    pytest.importorskip("coremltools", reason="coremltools is not installed")
    return converted_predictor(shared / NETWORK)


@functools.cache
def scores(name, shared):
    """Returns the log probabilities of the network, [H, W, 21] and the image."""
    with Image.open(shared / f"data/voc2012/JPEGImages/{name}.jpg") as file:
        image = np.array(file.convert("RGB"))
    probabilities = np.asarray(predictor(shared).predict(image).probabilities)
    return np.log(np.maximum(probabilities, 1e-6)).astype(np.float32), image


@functools.cache
def crop(name, shared):
    logits, image = scores(name, shared)
    rows, columns = widest_choice(np.exp(logits), *SIZE)
    return logits[rows, columns], np.ascontiguousarray(image[rows, columns])


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", PARAMETERS)
def test_default_agrees_with_the_exact_mean_field(name, image, shared):
    logits, pixels = crop(image, shared)
    expected = exact_crf(logits, pixels, PARAMETERS[name])
    assert agreement(logits, expected) <= 0.98
    found = np.asarray(dense_crf(jnp.asarray(logits)[None], pixels[None], PARAMETERS[name]))[0]
    assert agreement(found, expected) >= 0.99
    assert np.abs(found - expected).mean() <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
def test_symmetric_mode_agrees_with_pydensecrf_on_whole_images(image, shared):
    pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    from crf.test_pydensecrf import reference

    logits, pixels = scores(image, shared)
    parameters = dataclasses.replace(PARAMETERS["deeplab_largefov"], normalization="symmetric")
    expected = reference(logits, pixels, parameters)
    found = np.asarray(dense_crf(jnp.asarray(logits)[None], pixels[None], parameters))[0]
    assert agreement(found, expected) >= 0.99
