"""Real forward and backward passes: every backbone and every head, in both dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from heads import HEADS
from random_variables import random_variables
from selection import one_of_each_family, slow_unless

from deeplab_jax.backbones import BACKBONES
from deeplab_jax.losses import softmax_cross_entropy
from deeplab_jax.models import create_model
from deeplab_jax.models.image_classifier import create_classifier
from deeplab_jax.models.keywords import read_keywords

# Odd, even, and neither square.
SIZES = {"float32": (33, 49), "bfloat16": (34, 48)}
NARROW = {"num_classes": 5, "aspp_channels": 8, "low_level_channels": 4, "fc_channels": 16}


def train_once(model, size):
    """Returns loss, gradients and new statistics of one step on two random images."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    labels = random.integers(0, model.architecture.num_classes, (2, *size))
    variables = random_variables(model, images)
    statistics = {name: value for name, value in variables.items() if name != "params"}

    def loss(params, images, labels):
        (logits, maps), changed = model.apply(
            {"params": params, **statistics},
            images,
            train=True,
            endpoints=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        outputs = [logits, *(maps[name] for name in ("auxiliary",) if name in maps)]
        return sum(softmax_cross_entropy(output, labels) for output in outputs), changed

    def step(params, images, labels):
        return jax.value_and_grad(loss, has_aux=True)(params, images, labels)

    (value, changed), gradients = run_once(step, variables["params"], images, labels)
    return value, gradients, changed.get("batch_stats", {}), statistics.get("batch_stats", {})


def assert_learns(model, size):
    value, gradients, changed, before = train_once(model, size)
    assert np.isfinite(value)
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    for path, gradient in leaves:
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
    dead = [jax.tree_util.keystr(path) for path, gradient in leaves if not np.any(gradient)]
    assert not dead
    moved = jax.tree.leaves(jax.tree.map(lambda new, old: np.any(new != old), changed, before))
    assert all(moved)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("backbone", one_of_each_family(BACKBONES))
def test_every_backbone(backbone, dtype):
    model = create_model("deeplab_v3", backbone=backbone, head="plain", num_classes=5, dtype=dtype)
    assert_learns(model, SIZES[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head(head, dtype):
    keywords = {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "head": "aspp"} | HEADS[head]
    read = read_keywords(create_model("deeplab_v3", **keywords).architecture)
    narrow = {name: width for name, width in NARROW.items() if name in read}
    model = create_model("deeplab_v3", dtype=dtype, **(narrow | keywords))
    assert_learns(model, SIZES[dtype])


@pytest.mark.slow
def test_frozen_batch_normalisation_changes_no_statistic_and_normalises_by_the_averages():
    small = {"backbone": "mobilenet_v2", "depth_multiplier": 0.1, "head": "plain"}
    model = create_model("deeplab_v3", num_classes=3, frozen_batch_norm=True, **small)
    _, gradients, changed, before = train_once(model, (33, 33))
    assert jax.tree.leaves(before)
    jax.tree.map(np.testing.assert_array_equal, changed, before)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))
    images = np.random.default_rng(2).integers(0, 256, (1, 33, 33, 3), dtype=np.uint8)
    variables = random_variables(model, images)

    def both(variables, images):
        trained, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return trained, model.apply(variables, images)

    trained, evaluated = run_once(both, variables, images)
    np.testing.assert_array_equal(trained, evaluated)


def test_frozen_batch_normalisation_lets_image_pooling_train_on_one_image():
    keywords = {"backbone": "mobilenet_v2", "depth_multiplier": 0.1, "frozen_batch_norm": True}
    model = create_model("deeplab_v3", **keywords)
    images = jnp.zeros((1, 33, 33, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    logits, _ = jax.eval_shape(
        lambda v: model.apply(
            v, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        ),
        variables,
    )
    assert logits.shape == (1, 33, 33, 21)


@pytest.mark.parametrize(
    "head",
    slow_unless(
        ("large_fov", "aspp").__contains__,
        ["large_fov", "summed_fc", "aspp", "pooling", "spp", "dpc", "msc"],
    ),
)
def test_dropout_acts_in_training_only(head):
    """Everything else frozen, two keys differ in training and evaluation needs none."""
    keywords = {"large_fov": {"fc_channels": 8}, "summed_fc": {}}.get(head, {"aspp_channels": 8})
    model = create_model(
        "deeplab_v3",
        backbone="mobilenet_v2",
        depth_multiplier=0.1,
        frozen_batch_norm=True,
        **({"head": "aspp"} | keywords | HEADS[head]),
    )
    images = np.random.default_rng(3).integers(0, 256, (1, 33, 33, 3), dtype=np.uint8)
    variables = random_variables(model, images)

    def apply(variables, images):
        trained = [
            model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )[0]
            for key in jax.random.split(jax.random.key(0))
        ]
        return *trained, model.apply(variables, images)

    one, other, evaluated = run_once(apply, variables, images)
    assert np.any(one != other)
    assert np.any(one != evaluated)


def test_an_image_classifier_in_float64_rounds_no_activation_to_float32():
    with jax.enable_x64(True):
        model = create_classifier("resnet_18", dtype="float64")
        image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8)
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
        program = jax.make_jaxpr(model.apply)(variables, image)
    assert "new_dtype=float64" in str(program)
    assert "new_dtype=float32" not in str(program)
