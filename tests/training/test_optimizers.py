import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from deeplab_jax import config as configs
from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from deeplab_jax.training.optimizers import (
    backbone_units,
    decayed_parameters,
    make_optimizer,
    make_schedule,
    scale_by_layer,
    scale_by_part,
)

PARAMS = {
    "dense": {"kernel": np.array([1.0, -2.0]), "norm": {"scale": np.array([3.0])}},
    "depthwise": {"kernel": np.array([4.0])},
}
GRADIENTS = [
    jax.tree.map(lambda leaf, factor=factor: factor * (leaf + 0.5), PARAMS) for factor in (1, -0.3)
]
DECAY, RATE, MOMENTUM = 0.1, 0.01, 0.8


def schedule(num_steps=100, **changes):
    config = configs.default().schedule
    config.update({"base_learning_rate": 0.1} | changes)
    return make_schedule(config, num_steps)


@pytest.mark.parametrize(
    ("changes", "step", "rate"),
    [
        ({"name": "poly", "power": 0.5}, 75, 0.05),
        ({"name": "poly", "warmup_steps": 10}, 4, 0.05 * 0.96**0.9),
        ({"name": "step", "steps_per_drop": 30, "drop_factor": 0.5}, 60, 0.025),
        ({"name": "cosine"}, 50, 0.05),
        ({"name": "constant"}, 99, 0.1),
        ({"name": "constant", "warmup_steps": 4}, 0, 0.025),
    ],
)
def test_schedules(changes, step, rate):
    assert float(jax.jit(schedule(**changes))(jnp.int32(step))) == pytest.approx(rate, rel=1e-5)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(DeepLabError, match="did you mean 'cosine'"):
        schedule(name="cosin")


def settings(**changes):
    config = configs.default().optimizer
    config.update({"weight_decay": DECAY, "momentum": MOMENTUM} | changes)
    return config


def updated(optimizer):
    """Returns the parameters after one update per gradient."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for gradients in GRADIENTS:
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def updated_by_hand(name, decayed):
    """Returns one array after the updates, by the formulas of the papers; `decayed` is 0 or 1."""

    def update(param, *gradients):
        velocity, first, second = 0.0, 0.0, 0.0
        for step, gradient in enumerate(gradients, start=1):
            if name != "adamw":
                gradient = gradient + decayed * DECAY * param
            velocity = MOMENTUM * velocity + gradient
            first = MOMENTUM * first + (1 - MOMENTUM) * gradient
            second = 0.999 * second + 0.001 * gradient**2
            direction = (first / (1 - MOMENTUM**step)) / (
                np.sqrt(second / (1 - 0.999**step)) + 1e-8
            )
            if name == "adamw":
                direction = direction + decayed * DECAY * param
            param = param - RATE * (velocity if name == "sgd" else direction)
        return param

    return update


@pytest.mark.parametrize("decay_depthwise", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_two_updates_by_hand(name, decay_depthwise):
    config = settings(name=name, decay_depthwise=decay_depthwise)
    with jax.enable_x64(True):
        found = updated(make_optimizer(config, optax.constant_schedule(RATE)))
    decayed = {
        "dense": {"kernel": 1, "norm": {"scale": 0}},
        "depthwise": {"kernel": int(decay_depthwise)},
    }
    expected = jax.tree.map(
        lambda decays, *values: updated_by_hand(name, decays)(*values), decayed, PARAMS, *GRADIENTS
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def parameter_shapes(name, **keywords):
    """Returns the parameters of a network without their values."""
    model = create_model(name, **keywords)
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8)
    with ops.dispatching(export=True):
        return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm/mobilenetv4_conv_small_035"])
@pytest.mark.parametrize("decay_depthwise", [False, True])
def test_weight_decay_acts_on_convolution_kernels_alone(backbone, decay_depthwise):
    params = parameter_shapes("deeplab_v3plus", backbone=backbone, separable=True)
    mask = traverse_util.flatten_dict(decayed_parameters(params, decay_depthwise), sep="/")
    shapes = traverse_util.flatten_dict(params, sep="/")
    for path, decayed in mask.items():
        is_kernel = len(shapes[path].shape) == 4
        # One kernel a channel: the layers by that name, and nothing else.
        is_depthwise = is_kernel and shapes[path].shape[2] == 1
        assert decayed == (is_kernel and (decay_depthwise or not is_depthwise)), path
    assert mask["classifier/kernel"]
    assert not mask["classifier/bias"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "adamW"}, "unknown optimizer.name 'adamW'; did you mean 'adamw'?"),
        ({"clip_norm": -1.0}, r"clip_norm=-1.0 must be at least 0"),
        ({"clip_norm": float("inf")}, r"clip_norm=inf must be at least 0 and finite"),
        ({"weight_decay": -1.0}, r"weight_decay=-1.0 must be at least 0"),
    ],
)
def test_illegal_settings(changes, complaint):
    with pytest.raises(DeepLabError) as caught:
        make_optimizer(settings(**changes), optax.constant_schedule(RATE))
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_large_batch_optimizers_are_optaxs(name):
    """They equal Optax's, with weight decay as in the released code."""

    def mask(params):
        return decayed_parameters(params, False)

    rate = optax.constant_schedule(RATE)
    if name == "lars":
        reference = optax.lars(rate, DECAY, mask, momentum=MOMENTUM, trust_ratio_mask=mask)
    else:
        reference = optax.lamb(rate, b1=MOMENTUM, eps=1e-8, weight_decay=DECAY, mask=mask)
    with jax.enable_x64(True):
        found = updated(make_optimizer(settings(name=name), rate))
        expected = updated(reference)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_gradients_are_clipped_all_together():
    rate = optax.constant_schedule(1.0)
    optimizer = make_optimizer(settings(weight_decay=0.0, clip_norm=0.5), rate)
    with jax.enable_x64(True):
        updates, _ = optimizer.update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    length = float(optax.tree.norm(GRADIENTS[0]))
    assert length > 0.5
    jax.tree.map(
        lambda update, gradient: np.testing.assert_allclose(update, -gradient * 0.5 / length),
        updates,
        GRADIENTS[0],
    )


def test_nesterov_looks_ahead():
    rate = optax.constant_schedule(1.0)
    optimizer = make_optimizer(settings(weight_decay=0.0, nesterov=True), rate)
    updates, _ = optimizer.update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    jax.tree.map(
        lambda update, gradient: np.testing.assert_allclose(
            update, -(1 + MOMENTUM) * gradient, rtol=1e-6
        ),
        updates,
        GRADIENTS[0],
    )


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_nesterov_momentum_without_effect_is_refused(name):
    with pytest.raises(DeepLabError, match=f"no effect with optimizer.name={name}"):
        make_optimizer(settings(name=name, nesterov=True), optax.constant_schedule(RATE))


LEAVES = {
    "kernel": np.ones(2),
    "bias": np.ones(2),
    "norm": {"scale": np.ones(2), "bias": np.ones(2)},
}
PARTS = {part: {"conv": LEAVES} for part in ("backbone", "aspp", "refine", "decoder")} | {
    "classifier": {"kernel": np.ones(2), "bias": np.ones(2)}
}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_parts_have_separate_learning_rates(name):
    multipliers = {"backbone": 0.0, "head": 10.0, "decoder": 0.5, "classifier": 3.0, "bias": 2.0}
    gradients = jax.tree.map(lambda leaf: leaf * 0.1, PARTS)

    def first_update(**changes):
        optimizer = make_optimizer(settings(name=name, **changes), lambda step: RATE)
        updates, _ = optimizer.update(gradients, optimizer.init(PARTS), PARTS)
        return traverse_util.flatten_dict(updates, sep="/")

    plain, scaled = first_update(), first_update(multipliers=multipliers)
    ratios = {path: float(np.mean(scaled[path] / plain[path])) for path in plain}
    expected = {"backbone": 0, "aspp": 10, "refine": 10, "decoder": 0.5, "classifier": 3}
    for path, ratio in ratios.items():
        # Biases of convolutions learn twice as fast, offsets of normalisations do not.
        of_convolution = path.endswith("/bias") and "norm" not in path
        assert ratio == pytest.approx(expected[path.split("/")[0]] * (1 + of_convolution)), path


# Of DeepLab v2's branches on VGG-16 and on ResNet-101, and of what is like them but no classifier.
CONVOLUTION = {"kernel": np.full(2, 2.0), "bias": np.full(2, 3.0)}
NORMALIZED = {"kernel": np.full(2, 2.0), "norm": {"scale": np.ones(2), "bias": np.full(2, 4.0)}}
HEADS = {
    "backbone": {"conv": NORMALIZED, "rate_6": CONVOLUTION, "fc8": CONVOLUTION},
    "aspp": {
        "rate_6": {"fc6": CONVOLUTION, "fc7": CONVOLUTION, "fc8": CONVOLUTION},
        "rate_12": CONVOLUTION,
        "rate_18": NORMALIZED,
    },
    "lr_aspp": {
        "classifier": CONVOLUTION,
        "low_level_classifier": CONVOLUTION,
        "gate": CONVOLUTION,
    },
    "auxiliary": {"classifier": CONVOLUTION, "conv": NORMALIZED},
    "classifier": CONVOLUTION,
}


def test_updates_of_deeplab_v2_by_hand():
    """Rate 0.1: −0.1·multiplier·(gradient + decay·kernel), decay 0.5, all gradients 1."""
    multipliers = {
        "backbone": 0.5,
        "head": 3.0,
        "classifier": 10.0,
        "auxiliary": 7.0,
        "bias": 2.0,
        "norm": 0.0,
    }
    config = settings(weight_decay=0.5, multipliers=multipliers)
    optimizer = make_optimizer(config, lambda step: 0.1)
    gradients = jax.tree.map(np.ones_like, HEADS)
    updates, _ = optimizer.update(gradients, optimizer.init(HEADS), HEADS)
    found = traverse_util.flatten_dict(updates, sep="/")
    kernel, bias, norm = -0.2, -0.2, 0.0  # Of a part whose multiplier is 1.
    parts = {"backbone": 0.5, "auxiliary": 7, "classifier": 10, "lr_aspp": 10, "lr_aspp/gate": 3}
    parts |= {"aspp": 3, "aspp/rate_6/fc8": 10, "aspp/rate_12": 10}
    for path, update in found.items():
        part = max((part for part in parts if path.startswith(part)), key=len)
        leaf = norm if "/norm/" in path else bias if path.endswith("bias") else kernel
        np.testing.assert_allclose(update, parts[part] * leaf, rtol=1e-6, err_msg=path)
    assert found["aspp/rate_6/fc8/kernel"][0] == pytest.approx(-2.0)
    assert found["aspp/rate_6/fc8/bias"][0] == pytest.approx(-2.0)
    assert found["aspp/rate_6/fc6/kernel"][0] == pytest.approx(-0.6)


@pytest.mark.parametrize(
    ("keywords", "classifiers"),
    [
        ({"backbone": "vgg_16"}, {f"aspp/rate_{rate}/fc8" for rate in (6, 12, 18, 24)}),
        ({"backbone": "resnet_18"}, {f"aspp/rate_{rate}" for rate in (6, 12, 18, 24)}),
        ({"backbone": "resnet_18", "head": "large_fov"}, {"classifier"}),
        (
            {"backbone": "mobilenet_v3_small_seg", "head": "lr_aspp"},
            {"lr_aspp/classifier", "lr_aspp/low_level_classifier"},
        ),
        ({"backbone": "resnet_18", "fusion": "concat"}, {"classifier"}),
    ],
)
def test_every_classifier_of_a_network_is_found(keywords, classifiers):
    """Exactly the classifiers have as many outputs as there are classes."""
    name = "deeplab_v3" if keywords.get("head") == "lr_aspp" else "deeplab_v2"
    shapes = parameter_shapes(name, num_classes=13, **keywords)
    scaling = scale_by_part(dict(configs.default().optimizer.multipliers) | {"classifier": 0.0})
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape[-1:]), shapes)
    updates, _ = scaling.update(ones, scaling.init(ones), ones)
    still = {
        path.rpartition("/")[0]
        for path, update in traverse_util.flatten_dict(updates, sep="/").items()
        if not update.any()
    }
    assert still == classifiers
    assert still == {
        path.rpartition("/")[0]
        for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
        if leaf.shape[-1] == 13
    }


@pytest.mark.parametrize(
    "backbone", ["resnet_18", "mobilenet_v2", "timm/convnext_atto", "timm/convnextv2_atto"]
)
def test_every_normalization_of_a_network_is_found(backbone):
    """Exactly the normalizations have a scale."""
    shapes = parameter_shapes("deeplab_v3plus", backbone=backbone)
    scaling = scale_by_part(dict(configs.default().optimizer.multipliers) | {"norm": 0.0})
    ones = jax.tree.map(lambda leaf: np.ones(1), shapes)
    updates = traverse_util.flatten_dict(scaling.update(ones, scaling.init(ones), ones)[0])
    modules = {path[:-1] for path in updates if path[-1] == "scale"}
    assert {path for path, update in updates.items() if not update.any()} == {
        path for path in updates if path[:-1] in modules
    }


def test_a_negative_multiplier_is_refused():
    with pytest.raises(DeepLabError, match=r"optimizer\.multipliers\.head=-1\.0"):
        make_optimizer(settings(multipliers={"head": -1.0}), lambda step: RATE)


@pytest.mark.parametrize(
    ("backbone", "first", "last", "number"),
    [
        ("vgg_16", "conv1_1", "conv5_3", 13),
        ("resnet_18", "stem_1", "block4/unit_2", 9),
        ("resnet_50_beta", "stem_1", "block4/unit_3", 19),
        ("xception_41", "entry_flow/conv1_1", "exit_flow/block2", 15),
        ("mobilenet_v2", "layer_1", "layer_18", 18),
        ("timm/convnext_tiny", "stem", "stage_4/block_3", 22),
        pytest.param("timm/efficientnet_b0", "stem", "stage_7/block_1", 17, marks=pytest.mark.slow),
        pytest.param("timm/regnety_016", "stem", "stage_4/block_2", 28, marks=pytest.mark.slow),
    ],
)
def test_units_of_a_backbone_are_in_the_order_of_the_computation(backbone, first, last, number):
    model = create_model("deeplab_v3", backbone=backbone, num_classes=2)
    image = jnp.zeros((1, 65, 65, 3), jnp.uint8)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), image))["params"]
    units = backbone_units(traverse_util.flatten_dict(params))
    assert (units[0], units[-1], len(units)) == (first, last, number)
    if backbone == "xception_41":
        assert units[2:6] == [*(f"entry_flow/block{i}" for i in (1, 2, 3)), "middle_flow/unit_1"]
    if backbone == "timm/convnext_tiny":
        assert units[3:6] == ["stage_1/block_3", "stage_2/downsample", "stage_2/block_1"]
    if backbone == "mobilenet_v2":
        assert units == [f"layer_{number}" for number in range(1, 19)]


def test_layer_decay_by_hand():
    updates = {
        "backbone": {
            "layer_10": {"kernel": jnp.float32(8)},
            "layer_2": {"project": {"kernel": jnp.float32(8)}, "norm": {"scale": jnp.float32(4)}},
            "layer_1": {"kernel": jnp.float32(8)},
        },
        "head": {"layer_1": {"kernel": jnp.float32(8)}},
    }
    found, _ = scale_by_layer(0.5).update(updates, optax.EmptyState())
    assert found["backbone"]["layer_10"]["kernel"] == 4
    assert found["backbone"]["layer_2"]["project"]["kernel"] == 2
    assert found["backbone"]["layer_2"]["norm"]["scale"] == 1
    assert found["backbone"]["layer_1"]["kernel"] == 1
    assert found["head"]["layer_1"]["kernel"] == 8


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lars"])
def test_layer_decay_scales_the_first_update_of_every_optimizer(name):
    params = {
        "backbone": {"layer_1": {"conv": {"kernel": jnp.ones((2, 2))}}},
        "head": {"conv": {"kernel": jnp.ones((2, 2))}},
    }
    gradients = jax.tree.map(lambda leaf: 0.3 * leaf, params)

    def update(**changes):
        optimizer = make_optimizer(settings(name=name, **changes), optax.constant_schedule(0.1))
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    plain, decayed = update(), update(layer_decay=0.25)
    factors = jax.tree.map(lambda one, other: float((other / one)[0, 0]), plain, decayed)
    assert factors["backbone"]["layer_1"]["conv"]["kernel"] == pytest.approx(0.25)
    assert factors["head"]["conv"]["kernel"] == pytest.approx(1)


def test_an_illegal_layer_decay_is_refused():
    with pytest.raises(DeepLabError, match=r"optimizer.layer_decay=0.0 must be in \(0, 1\]"):
        make_optimizer(settings(layer_decay=0.0), optax.constant_schedule(0.1))
