import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from crf.exact import softmax
from crf.scenes import SETS, agreement, image_crop, random_logits, textured_image

from deeplab_jax.crf import PARAMETERS, dense_crf

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
CONSTANTS = {
    "after": densecrf.NORMALIZE_AFTER,
    "symmetric": densecrf.NORMALIZE_SYMMETRIC,
}


def reference(logits, image, parameters):
    height, width, classes = logits.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    energy = -np.log(softmax(logits.astype(float))).reshape(-1, classes).T
    crf.setUnaryEnergy(np.ascontiguousarray(energy, np.float32))
    crf.addPairwiseGaussian(
        sxy=parameters.smoothness_position_std,
        compat=parameters.smoothness_weight,
        normalization=CONSTANTS[parameters.normalization],
    )
    crf.addPairwiseBilateral(
        sxy=parameters.bilateral_position_std,
        srgb=parameters.bilateral_color_std,
        rgbim=image,
        compat=parameters.bilateral_weight,
        normalization=CONSTANTS[parameters.normalization],
    )
    return np.array(crf.inference(parameters.iterations)).T.reshape(logits.shape)


def check(logits, image, parameters):
    expected = reference(logits, image, parameters)
    assert agreement(logits, expected) <= 0.98
    found = np.asarray(dense_crf(jnp.asarray(logits)[None], image[None], parameters))[0]
    assert agreement(found, expected) >= 0.99
    assert np.abs(found - expected).mean() <= 1e-3


@pytest.mark.parametrize("normalization", CONSTANTS)
@pytest.mark.parametrize("name", SETS)
def test_lattice_agrees_with_pydensecrf(name, normalization):
    parameters = dataclasses.replace(
        PARAMETERS[name], normalization=normalization, filtering="lattice"
    )
    check(random_logits(0, 61, 47, 21), textured_image(0, 61, 47), parameters)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["golden/bird_513.png"])
def test_symmetric_mode_agrees_with_pydensecrf_on_images(source, shared):
    parameters = dataclasses.replace(PARAMETERS["deeplab_largefov"], normalization="symmetric")
    image = image_crop(shared / "data" / source, 0, 150, 201)
    check(random_logits(1, 150, 201, 21), image, parameters)
