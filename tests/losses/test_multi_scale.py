import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute_force import interpolation

from deeplab_jax.losses import multi_scale_cross_entropy, shrink_labels, softmax_cross_entropy
from deeplab_jax.models import create_model

# A crop of 321 and its maps at output stride 8.
SIZES = {"scores": 41, "scores_0.75": 31, "scores_0.5": 21}
RANDOM = np.random.default_rng(0)
MAPS = {
    name: RANDOM.normal(0, 2, (3, size, size, 4)).astype(np.float32) for name, size in SIZES.items()
}
LABEL = RANDOM.choice([0, 1, 2, 3, 255], (3, 321, 321)).astype(np.uint8)
# Images with ever less void, so that the mean over images is not the one over pixels.
LABEL = np.where(RANDOM.random(LABEL.shape) < [[[0.9]], [[0.5]], [[0.0]]], 255, LABEL)

multi_scale = jax.jit(
    multi_scale_cross_entropy,
    static_argnames=("class_weights", "label_smoothing", "native_scales", "align_corners"),
)


def enlarged(name, align_corners=True):
    weights = interpolation(SIZES[name], 41, align_corners)
    return np.einsum("Hh,Ww,nhwc->nHWc", weights, weights, MAPS[name])


def mean_loss(scores, label):
    """Mean of −log softmax over the valid pixels."""
    scores, label = scores[label != 255].astype(np.float64), label[label != 255]
    log_sum = np.log(np.exp(scores).sum(-1))
    return np.mean(log_sum - np.take_along_axis(scores, label[:, None].astype(int), 1)[:, 0])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("native", [(0.5,), (0.5, 0.75), ()])
def test_four_terms_of_the_released_network(align_corners, native):
    def shrunk(size):
        number = np.arange(size)
        index = number * 320 / (size - 1) if align_corners else (number + 0.5) * 321 / size - 0.5
        nearest = np.floor(index + 0.5).astype(int)
        return LABEL[:, nearest][:, :, nearest]

    eighth, sixteenth = shrunk(41), shrunk(21)
    of_075, of_05 = enlarged("scores_0.75", align_corners), enlarged("scores_0.5", align_corners)
    fused = np.maximum(np.maximum(MAPS["scores"], of_075), of_05)
    middle, small = (of_075, eighth), (of_05, eighth)
    if 0.75 in native:
        middle = MAPS["scores_0.75"], shrunk(31)
    if 0.5 in native:
        small = MAPS["scores_0.5"], sixteenth
    terms = [(fused, eighth), (MAPS["scores"], eighth), middle, small]
    found = multi_scale(MAPS, LABEL, native_scales=native, align_corners=align_corners)
    np.testing.assert_allclose(found, sum(mean_loss(*term) for term in terms), rtol=1e-5)


def test_parts_with_the_label_of_the_whole_batch_add_up():
    parts = []
    for index in range(len(LABEL)):
        maps = {name: scores[index : index + 1] for name, scores in MAPS.items()}
        parts.append(multi_scale(maps, LABEL[index : index + 1], LABEL))
    np.testing.assert_allclose(sum(parts), multi_scale(MAPS, LABEL), rtol=1e-5)


def test_a_single_scale_is_one_term():
    found = multi_scale({"scores": MAPS["scores"], "features": MAPS["scores"]}, LABEL)
    expected = softmax_cross_entropy(MAPS["scores"], shrink_labels(LABEL, (41, 41)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_batch_that_is_all_void_has_no_loss_and_no_gradient(dtype):
    maps = {name: jnp.asarray(scores, dtype) for name, scores in MAPS.items()}
    value, gradients = jax.value_and_grad(multi_scale)(maps, np.full_like(LABEL, 255))
    assert value == 0
    assert not any(np.any(gradient) for gradient in gradients.values())


@pytest.mark.parametrize("weights", [None, (0.5, 0.0, 2.0, 1.0)])
def test_gradients_reach_every_scale(weights):
    value, gradients = jax.value_and_grad(multi_scale)(
        MAPS, LABEL, class_weights=weights, label_smoothing=0.1
    )
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() and gradient.any() for gradient in gradients.values())


def test_takes_the_endpoints_of_the_model():
    model = create_model("deeplab_v2", backbone="vgg_16", multi_scale=(1, 0.75, 0.5))
    image = jax.ShapeDtypeStruct((1, 321, 321, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((1, 321, 321), jnp.uint8)

    def loss(image, label):
        variables = model.init(jax.random.key(0), image)
        _, maps = model.apply(variables, image, endpoints=True)
        return {name: maps[name] for name in SIZES}, multi_scale_cross_entropy(maps, label)

    maps, value = jax.eval_shape(loss, image, label)
    assert {name: scores.shape for name, scores in maps.items()} == {
        name: (1, size, size, 21) for name, size in SIZES.items()
    }
    assert (value.shape, value.dtype) == ((), jnp.float32)
