import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crf.exact import exact_crf, kernels, softmax
from crf.scenes import SETS, agreement, image_crop, mean_entropy, random_logits, textured_image
from selection import slow_unless

from deeplab_jax.crf import DIRECT_PIXELS, PARAMETERS, CRFParameters, crf_parameters, dense_crf
from deeplab_jax.errors import DeepLabError

SIZE = (40, 50)
SMALL = CRFParameters(2.0, 4.0, 20.0, 1.5, 1.0, iterations=3)
# Each is compiled; two have all four values.
COMBINATIONS = [
    ("after", "lattice"),
    ("symmetric", "direct"),
    pytest.param("after", "direct", marks=pytest.mark.slow),
    pytest.param("symmetric", "lattice", marks=pytest.mark.slow),
]
REAL = ("golden/bird_513.png", "voc2012/JPEGImages/2007_000063.jpg")


def refine(logits, image, parameters, **options):
    return np.asarray(dense_crf(jnp.asarray(logits)[None], image[None], parameters, **options))[0]


@functools.cache
def scene(source, shared=None):
    if source == "textured":
        image = textured_image(0, *SIZE)
    else:
        image = image_crop(shared / "data" / source, 1, *SIZE)
    return random_logits(2, *SIZE, 21), image


def check_against_exact(logits, image, parameters, least):
    before, after = softmax(logits.astype(float)), exact_crf(logits, image, parameters)
    assert mean_entropy(before) >= 1
    assert agreement(before, after) <= 0.98
    found = refine(logits, image, parameters)
    assert agreement(found, after) >= least
    assert np.abs(found - after).mean() <= 0.02


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_direct_sums_are_the_exact_mean_field(name, normalization):
    parameters = dataclasses.replace(
        PARAMETERS[name], filtering="direct", normalization=normalization
    )
    logits, image = scene("textured")
    found = refine(logits, image, parameters)
    np.testing.assert_allclose(found, exact_crf(logits, image, parameters), rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", PARAMETERS)
def test_default_agrees_with_the_exact_mean_field(name):
    check_against_exact(*scene("textured"), PARAMETERS[name], 0.99)


@pytest.mark.parametrize("source", slow_unless(lambda source: source == REAL[0], REAL))
@pytest.mark.parametrize("name", PARAMETERS)
def test_default_agrees_with_the_exact_mean_field_on_crops_of_images(name, source, shared):
    check_against_exact(*scene(source, shared), PARAMETERS[name], 0.99)


@pytest.mark.parametrize("name", SETS)
def test_lattice_is_near_the_exact_mean_field(name):
    # What the approximation reaches on grainy texture and blurred, undecided scores.
    parameters = dataclasses.replace(PARAMETERS[name], filtering="lattice")
    check_against_exact(*scene("textured"), parameters, 0.96)


@pytest.mark.parametrize(("normalization", "filtering"), COMBINATIONS)
def test_constant_image_and_a_kernel_without_reach(filtering, normalization):
    # Deviations far below a pixel's distance: each pixel hears itself alone, with all the weight.
    parameters = CRFParameters(2.0, 0.05, 10.0, 1.0, 0.05, 1, normalization, filtering)
    logits, image = random_logits(0, 7, 5, 4), np.full((7, 5, 3), 90, np.uint8)
    expected = softmax(logits + 3 * softmax(logits.astype(float)))
    np.testing.assert_allclose(refine(logits, image, parameters), expected, atol=1e-5)


def test_constant_image_and_kernels_without_end():
    # Both kernels are 1 everywhere: the message is the mean over the image.
    parameters = CRFParameters(2.0, 1e6, 10.0, 1.0, 1e6, 1)
    logits, image = random_logits(0, 7, 5, 4), np.full((7, 5, 3), 90, np.uint8)
    before = softmax(logits.astype(float))
    expected = softmax(logits + 3 * before.mean(axis=(0, 1)))
    np.testing.assert_allclose(refine(logits, image, parameters), expected, atol=1e-5)


@pytest.mark.parametrize("filtering", ["direct", pytest.param("lattice", marks=pytest.mark.slow)])
def test_equal_scores_stay_equal(filtering):
    parameters = dataclasses.replace(PARAMETERS["deeplab"], filtering=filtering)
    found = refine(np.zeros((9, 13, 3), np.float32), textured_image(1, 9, 13), parameters)
    np.testing.assert_allclose(found, 1 / 3, rtol=1e-5)


def test_compatibility_of_labels():
    random = np.random.default_rng(0)
    logits, image = random_logits(3, 9, 11, 5), textured_image(3, 9, 11)
    compatibility = random.random((5, 5))
    expected = exact_crf(logits, image, SMALL, compatibility)
    found = refine(logits, image, SMALL, compatibility=compatibility)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    potts = refine(logits, image, SMALL, compatibility=1 - np.eye(5))
    np.testing.assert_allclose(potts, refine(logits, image, SMALL), atol=1e-6)


def test_no_iterations_are_softmax():
    logits, image = random_logits(0, 3, 4, 2), textured_image(0, 3, 4)
    parameters = dataclasses.replace(SMALL, iterations=0)
    np.testing.assert_allclose(refine(logits, image, parameters), softmax(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "filtering"),
    [
        ((1, 1), "direct"),
        ((17, 3), "direct"),
        pytest.param((17, 3), "lattice", marks=pytest.mark.slow),
        pytest.param((1, 1), "lattice", marks=pytest.mark.slow),
        pytest.param((1, 9), "lattice", marks=pytest.mark.slow),
        pytest.param((23, 31), "lattice", marks=pytest.mark.slow),
    ],
)
def test_batches_and_jit_give_what_single_images_give(size, filtering):
    parameters = dataclasses.replace(SMALL, filtering=filtering)
    logits = np.stack([random_logits(seed, *size, 3) for seed in range(2)])
    image = np.stack([textured_image(seed, *size) for seed in range(2)])
    batch = dense_crf(jnp.asarray(logits), image, parameters)
    single = [refine(*pair, parameters) for pair in zip(logits, image, strict=True)]
    np.testing.assert_allclose(batch, single, atol=1e-6)
    np.testing.assert_allclose(jax.jit(dense_crf)(logits, image, parameters), single, atol=1e-5)


def test_a_known_image_inside_of_jit():
    parameters = dataclasses.replace(SMALL, filtering="lattice")
    logits, image = random_logits(0, 17, 3, 3), textured_image(0, 17, 3)
    closed = jax.jit(lambda scores: dense_crf(scores[None], image[None], parameters))
    np.testing.assert_allclose(closed(logits)[0], refine(logits, image, parameters), atol=1e-6)


@pytest.mark.slow
def test_a_full_lattice_raises_an_error():
    parameters = dataclasses.replace(SMALL, filtering="lattice")
    logits, image = random_logits(0, 17, 3, 3)[None], textured_image(0, 17, 3)[None]
    run = jax.jit(dense_crf, static_argnames="lattice_capacity")
    assert np.isnan(run(logits, image, parameters, lattice_capacity=16)).all()
    enough = run(logits, image, parameters, lattice_capacity=300)
    np.testing.assert_allclose(enough, dense_crf(logits, image, parameters), atol=1e-6)


@pytest.mark.parametrize(("normalization", "filtering"), COMBINATIONS)
def test_gradients_agree_with_finite_differences(filtering, normalization):
    random = np.random.default_rng(0)
    size, classes = (5, 7), 3
    image, away = textured_image(5, *size)[None], random.normal(size=(1, *size, classes))
    parameters = dataclasses.replace(SMALL, filtering=filtering, normalization=normalization)
    start = {
        "logits": random.normal(size=away.shape),
        "weights": np.array([2.0, 1.5]),
        "compatibility": random.random((classes, classes)),
    }
    step = {name: random.normal(size=value.shape) for name, value in start.items()}

    @jax.jit
    def loss(leaves):
        bilateral, smoothness = leaves["weights"]
        changed = dataclasses.replace(
            parameters, bilateral_weight=bilateral, smoothness_weight=smoothness
        )
        found = dense_crf(leaves["logits"], image, changed, compatibility=leaves["compatibility"])
        return jnp.sum(found * away)

    with jax.enable_x64(True):
        start = jax.tree.map(jnp.asarray, start)
        gradient = jax.grad(loss)(start)
        for name, direction in step.items():
            ahead, behind = (
                loss(start | {name: start[name] + sign * 1e-5 * direction}) for sign in (1, -1)
            )
            expected = float(ahead - behind) / 2e-5
            assert float(jnp.vdot(gradient[name], direction)) == pytest.approx(expected, rel=1e-6)


def test_gradient_with_respect_to_the_parameters():
    logits, image = random_logits(0, 6, 5, 3)[None], textured_image(0, 6, 5)[None]
    gradient = jax.grad(lambda p: dense_crf(logits, image, p)[..., 0].sum())(SMALL)
    assert gradient.bilateral_weight != 0
    assert gradient.bilateral_color_std == 0
    assert gradient.iterations == SMALL.iterations


def test_large_scores_stay_finite():
    logits, image = 1e4 * random_logits(0, 9, 9, 3), textured_image(0, 9, 9)
    assert np.isfinite(refine(logits, image, PARAMETERS["deeplab"])).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_half_precision_scores_are_refined_in_single(dtype):
    logits, image = random_logits(0, 9, 7, 3), textured_image(0, 9, 7)
    halved = jnp.asarray(logits, dtype)
    found = dense_crf(halved[None], image[None], SMALL)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], refine(halved.astype(jnp.float32), image, SMALL))


def test_automatic_filtering():
    assert SIZE[0] * SIZE[1] <= DIRECT_PIXELS
    logits, image = scene("textured")
    named = PARAMETERS["deeplab"]
    for normalization, filtering in [("after", "direct"), ("symmetric", "lattice")]:
        normal = dataclasses.replace(named, normalization=normalization)
        chosen = dataclasses.replace(normal, filtering=filtering)
        np.testing.assert_array_equal(refine(logits, image, normal), refine(logits, image, chosen))


LOGITS, IMAGE = np.zeros((1, 4, 5, 3), np.float32), np.zeros((1, 4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("logits", "image", "message"),
    [
        (LOGITS[0], IMAGE, r"CRF logits must be .*got float32 \[4, 5, 3\]"),
        (LOGITS.astype(int), IMAGE, "must be floating point"),
        (LOGITS, IMAGE[:, :3], r"image of a CRF must be uint8 \[1, 4, 5, 3\]"),
        (LOGITS, IMAGE.astype(np.float32), "image of a CRF must be uint8 .*got float32"),
        (LOGITS, IMAGE[..., :1], "image of a CRF"),
        (LOGITS[:, :0], IMAGE[:, :0], "at least 1 pixel"),
    ],
)
def test_wrong_arrays_are_refused(logits, image, message):
    with pytest.raises(DeepLabError, match=message):
        dense_crf(logits, image, SMALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bilateral_weight", -1.0),
        ("bilateral_position_std", 0.0),
        ("bilateral_color_std", float("nan")),
        ("smoothness_position_std", float("inf")),
        ("iterations", -1),
        ("iterations", 2.5),
        ("normalization", "symetric"),
        ("filtering", "lattices"),
    ],
)
def test_wrong_parameters_are_refused(field, value):
    with pytest.raises(DeepLabError, match=field.split("_")[0]):
        dense_crf(LOGITS, IMAGE, dataclasses.replace(SMALL, **{field: value}))


def test_wrong_compatibility_is_refused():
    with pytest.raises(DeepLabError, match=r"must be \[3, 3\], got \[2, 2\]"):
        dense_crf(LOGITS, IMAGE, SMALL, compatibility=np.eye(2))


def test_deviations_too_small_for_lattice_keys_are_refused():
    parameters = CRFParameters(1.0, 1e-4, 1e-4, filtering="lattice")
    with pytest.raises(DeepLabError, match="increase bilateral_position_std"):
        dense_crf(LOGITS, textured_image(0, 4, 5)[None], parameters)


def test_no_image_gives_none():
    assert dense_crf(LOGITS[:0], IMAGE[:0], SMALL).shape == (0, 4, 5, 3)


def test_unknown_set_names_the_nearest():
    with pytest.raises(DeepLabError, match="did you mean 'deeplab_largefov'"):
        crf_parameters("deeplab_large_fov")
    assert crf_parameters("deeplab") is PARAMETERS["deeplab"]


def test_exact_kernels_are_normalised():
    # The reference itself: rows of the default normalisation sum to the weights.
    total = sum(kernels(textured_image(0, 5, 6), SMALL)).sum(axis=1)
    np.testing.assert_allclose(total, 3.5)
