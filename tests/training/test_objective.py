import jax
import jax.numpy as jnp
import numpy as np
import pytest
from step_parts import random_batch

from deeplab_jax import config as configs
from deeplab_jax import losses, ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture
from deeplab_jax.training.loss import Outputs, make_objective

RANDOM = np.random.default_rng(0)
LABEL = random_batch(3)["label"]
PLAIN = Architecture("mobilenet_v2", num_classes=4)
THREE_SCALES = Architecture("mobilenet_v2", num_classes=4, multi_scale=(1, 0.75, 0.5))


def noise(*shape):
    return jnp.asarray(RANDOM.normal(0, 2, shape), jnp.float32)


OUTPUTS = Outputs(
    noise(3, 8, 9, 4),
    {
        "scores": noise(3, 4, 5, 4),
        "scores_0.75": noise(3, 3, 4, 4),
        "scores_0.5": noise(3, 2, 3, 4),
        "fused_scores": noise(3, 4, 5, 4),
    },
)


def value(architecture=PLAIN, outputs=OUTPUTS, label=LABEL, step=0, **changes):
    config = configs.default().loss
    config.update(changes)
    return float(make_objective(config, architecture)(outputs, label, LABEL, jnp.int32(step)))


def test_the_default_is_cross_entropy_at_the_images_size():
    expected = losses.softmax_cross_entropy(OUTPUTS.logits, LABEL)
    assert value() == pytest.approx(float(expected), rel=1e-6)


def test_terms_are_added_by_their_weights():
    terms = {
        "cross_entropy": losses.softmax_cross_entropy(OUTPUTS.logits, LABEL),
        "focal": losses.focal_loss(OUTPUTS.logits, LABEL, gamma=1.5),
        "dice": losses.dice_loss(OUTPUTS.logits, LABEL),
        "lovasz": losses.lovasz_softmax(OUTPUTS.logits, LABEL),
    }
    weights = {"cross_entropy": 0.0, "focal": 2.0, "dice": 0.5, "lovasz": 0.25}
    expected = sum(weights[name] * float(term) for name, term in terms.items())
    assert value(focal_gamma=1.5, **weights) == pytest.approx(expected, rel=1e-5)


def test_labels_may_be_shrunk_to_the_scores():
    small = losses.shrink_labels(LABEL, (4, 5))
    expected = losses.softmax_cross_entropy(OUTPUTS.maps["fused_scores"], small)
    assert value(upsample_logits=False) == pytest.approx(float(expected), rel=1e-6)


def test_labels_are_shrunk_with_the_corners_of_the_network():
    label = jnp.asarray(RANDOM.integers(0, 4, (1, 12, 16)), jnp.uint8)
    scores = noise(1, 3, 4, 4)
    outputs = Outputs(noise(1, 12, 16, 4), {"fused_scores": scores})
    network = Architecture("mobilenet_v2", num_classes=4, align_corners=False)
    config = configs.default().loss
    config.upsample_logits = False
    found = make_objective(config, network)(outputs, label, label, jnp.int32(0))
    # With half-pixel centers, score t has its center between the pixels 4·t + 1 and 4·t + 2.
    expected = losses.softmax_cross_entropy(scores, label[:, 2::4, 2::4])
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


WITH_AUXILIARY = OUTPUTS._replace(
    maps=OUTPUTS.maps | {"auxiliary_scores": noise(3, 6, 7, 4), "auxiliary": noise(3, 8, 9, 4)}
)


@pytest.mark.parametrize("every_scale", [False, True])
@pytest.mark.parametrize("normalization", ["pixels", "images"])
def test_an_auxiliary_head_has_its_loss_at_the_size_of_its_scores(normalization, every_scale):
    changes = {
        "upsample_logits": False,
        "supervise_all_scales": every_scale,
        "label_smoothing": 0.1,
    }
    changes |= {"normalization": normalization, "cross_entropy": 0.7}
    architecture = THREE_SCALES if every_scale else PLAIN
    alone = value(architecture, **changes)
    scores, label = WITH_AUXILIARY.maps["auxiliary_scores"], losses.shrink_labels(LABEL, (6, 7))
    if normalization == "pixels":
        auxiliary = losses.softmax_cross_entropy(scores, label, label_smoothing=0.1)
    else:
        auxiliary = np.mean(
            [
                losses.softmax_cross_entropy(*image, label_smoothing=0.1)
                for image in zip(scores[:, None], label[:, None], strict=True)
            ]
        )
    expected = alone + 0.7 * 0.25 * float(auxiliary)
    found = value(architecture, WITH_AUXILIARY, auxiliary_weight=0.25, **changes)
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_auxiliary_head_works_with_every_term():
    weights = {"focal": 1.0, "dice": 0.5, "lovasz": 0.25, "hard_pixel_fraction": 0.5}
    main = value(upsample_logits=False, **weights)
    scores = {"fused_scores": WITH_AUXILIARY.maps["auxiliary_scores"]}
    auxiliary = value(outputs=OUTPUTS._replace(maps=scores), upsample_logits=False, **weights)
    found = value(outputs=WITH_AUXILIARY, upsample_logits=False, **weights)
    assert found == pytest.approx(main + 0.5 * auxiliary, rel=1e-5)


@pytest.mark.parametrize("normalization", ["pixels", "images"])
@pytest.mark.parametrize("auxiliary", [False, True])
def test_some_rows_at_once_give_the_loss_of_all(auxiliary, normalization):
    changes = {"label_smoothing": 0.1, "cross_entropy": 0.7, "normalization": normalization}
    maps = {"fused_scores": OUTPUTS.maps["fused_scores"]}
    if auxiliary:
        maps["auxiliary_scores"] = OUTPUTS.maps["scores_0.75"]
    enlarged = {name: ops.resize_bilinear(scores, (8, 9)) for name, scores in maps.items()}
    whole = Outputs(
        enlarged["fused_scores"],
        {"auxiliary": enlarged["auxiliary_scores"]} if auxiliary else {},
    )
    expected = value(outputs=whole, **changes)
    # The logits are not looked at.
    found = value(outputs=Outputs(noise(3, 8, 9, 4), maps), chunk_rows=3, **changes)
    assert found == pytest.approx(expected, rel=1e-6)


def test_every_scale_has_its_loss():
    expected = losses.multi_scale_cross_entropy(OUTPUTS.maps, LABEL)
    found = value(THREE_SCALES, upsample_logits=False, supervise_all_scales=True)
    assert found == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("step", [0, 5, 10, 20])
def test_the_share_of_hard_pixels_falls_with_the_steps(step):
    share = 1 - 0.8 * min(step / 10, 1)
    expected = losses.hard_pixel_cross_entropy(OUTPUTS.logits, LABEL, fraction=share)
    found = value(step=step, hard_pixel_fraction=0.2, hard_pixel_anneal_steps=10)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_caffes_divisor_by_hand():
    """Two valid pixels in image 0 with loss ln 4, one in image 1 with loss 0, none in image 2."""
    logits = np.zeros((3, 1, 2, 4), np.float32)
    logits[1, ..., 2] = 1000
    label = jnp.asarray([[[0, 3]], [[2, 255]], [[255, 255]]], jnp.uint8)
    outputs, step = Outputs(jnp.asarray(logits), {}), jnp.int32(0)
    found = {}
    for normalization in ("pixels", "images"):
        config = configs.default().loss
        config.normalization = normalization
        objective = make_objective(config, PLAIN)
        found[normalization] = float(objective(outputs, label, label, step))
        parts = [
            objective(
                jax.tree.map(lambda array, n=n: array[n : n + 1], outputs), each[None], label, step
            )
            for n, each in enumerate(label)
        ]
        assert float(sum(parts)) == pytest.approx(found[normalization])
    assert found["pixels"] == pytest.approx(2 * np.log(4) / 3)
    assert found["images"] == pytest.approx(np.log(4) / 3)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (PLAIN, {}),
        (PLAIN, {"dice": 1.0, "hard_pixel_fraction": 0.5}),
        (THREE_SCALES, {"upsample_logits": False, "supervise_all_scales": True}),
    ],
)
def test_the_mean_of_images_is_that_of_batches_of_one(architecture, changes):
    alone = []
    for n in range(3):
        outputs = jax.tree.map(lambda array, n=n: array[n : n + 1], OUTPUTS)
        config = configs.default().loss
        config.update(changes)
        objective = make_objective(config, architecture)
        label = LABEL[n : n + 1]
        alone.append(float(objective(outputs, label, label, jnp.int32(0))))
    found = value(architecture, normalization="images", **changes)
    assert found == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("every_scale", [False, True])
def test_a_batch_of_nothing_but_void_has_no_loss_and_no_gradient(every_scale):
    config = configs.default().loss
    config.update(
        {"normalization": "images", "upsample_logits": False, "supervise_all_scales": every_scale}
    )
    objective = make_objective(config, THREE_SCALES)
    void = jnp.full(LABEL.shape, 255, jnp.uint8)
    loss, slopes = jax.value_and_grad(objective)(OUTPUTS, void, void, jnp.int32(0))
    assert float(loss) == 0
    assert all(not np.asarray(slope).any() for slope in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (PLAIN, {}),
        (PLAIN, {"normalization": "images"}),
        (PLAIN, {"normalization": "images", "dice": 1.0}),
        (
            THREE_SCALES,
            {"normalization": "images", "upsample_logits": False, "supervise_all_scales": True},
        ),
        (PLAIN, {"upsample_logits": False, "label_smoothing": 0.1}),
        (THREE_SCALES, {"upsample_logits": False, "supervise_all_scales": True}),
        (PLAIN, {"upsample_logits": False, "label_smoothing": 0.1, "auxiliary": True}),
        (THREE_SCALES, {"upsample_logits": False, "supervise_all_scales": True, "auxiliary": True}),
    ],
)
def test_parts_of_a_batch_add_up_to_it(architecture, changes):
    changes = dict(changes)
    outputs = WITH_AUXILIARY if changes.pop("auxiliary", False) else OUTPUTS
    parts = [
        value(
            architecture,
            jax.tree.map(lambda array, n=n: array[n : n + 1], outputs),
            LABEL[n : n + 1],
            **changes,
        )
        for n in range(3)
    ]
    assert sum(parts) == pytest.approx(value(architecture, outputs, **changes), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"normalization": "image"}, "did you mean 'images'"),
        ({"cross_entropy": 0.0}, "one of the loss weights must be above 0"),
        ({"dice": -1.0}, "loss.dice=-1.0 must be at least 0"),
        ({"hard_pixel_fraction": 0.0}, r"must be in \(0, 1\]"),
        ({"label_smoothing": 1.0}, r"must be in \[0, 1\)"),
        ({"l1": -0.1}, "l1=-0.1 must be at least 0"),
        ({"supervise_all_scales": True}, "requires model.multi_scale"),
        ({"chunk_rows": -1}, "chunk_rows=-1 must be a whole number of at least 0"),
        ({"chunk_rows": 8, "upsample_logits": False}, "requires cross-entropy over all pixels"),
        ({"chunk_rows": 8, "dice": 1.0}, "requires cross-entropy over all pixels"),
        ({"chunk_rows": 8, "hard_pixel_fraction": 0.5}, "requires cross-entropy over all pixels"),
        (
            {"cross_entropy": 0.0, "focal": 1.0, "class_weights": (1.0, 2.0, 1.0, 1.0)},
            "no effect with loss.cross_entropy=0; set loss.class_weights=None",
        ),
        (
            {"cross_entropy": 0.0, "dice": 1.0, "hard_pixel_fraction": 0.5},
            "no effect with loss.cross_entropy=0; set loss.hard_pixel_fraction=1",
        ),
    ],
)
def test_illegal_fields(changes, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        value(**changes)


@pytest.mark.parametrize("changes", [{"upsample_logits": True}, {"dice": 1.0}])
def test_every_scale_is_of_cross_entropy_on_the_scores(changes):
    with pytest.raises(DeepLabError, match="requires cross-entropy over all pixels"):
        value(THREE_SCALES, **({"upsample_logits": False, "supervise_all_scales": True} | changes))
