"""Every trainable parameter takes part in the loss, for every network with every form of loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from jax.interpreters import partial_eval
from selection import slow_unless

from deeplab_jax import config as configs
from deeplab_jax.models import create_model
from deeplab_jax.training.loss import Outputs, make_objective

BATCH, SIZE, CLASSES = 4, (33, 49), 3
SMALL = {"num_classes": CLASSES, "aux_head": True}
MOBILE = SMALL | {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "aspp_channels": 8}
PLAIN = SMALL | {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "head": "plain"}
SCALES = (1, 0.75, 0.5)
NETWORKS = {
    "v1": ("deeplab_v1", SMALL | {"fc_channels": 8}),
    "v1, MSc": ("deeplab_v1", SMALL | {"fc_channels": 8, "decoder": "msc"}),
    "v2 on VGG-16": ("deeplab_v2", SMALL | {"backbone": "vgg_16", "fc_channels": 8}),
    "v2": ("deeplab_v2", SMALL | {"backbone": "resnet_18"}),
    "v3": ("deeplab_v3", MOBILE | {"head": "aspp"}),
    "v3, pooling": ("deeplab_v3", MOBILE),
    "v3, cascade": ("deeplab_v3", SMALL | {"backbone": "resnet_18", "head": "cascade"}),
    "v3, spp": ("deeplab_v3", MOBILE | {"head": "spp"}),
    "v3, dpc": ("deeplab_v3", MOBILE | {"head": "dpc"}),
    "v3, plain": ("deeplab_v3", PLAIN),
    "v3, LR-ASPP": ("deeplab_v3", SMALL | {"backbone": "mobilenet_v3_small_seg"}),
    "v3+": ("deeplab_v3plus", MOBILE),
    "v3+, two stages": ("deeplab_v3plus", MOBILE | {"decoder": "conv2_conv3"}),
    "torchvision": ("torchvision/deeplabv3_mobilenet_v3_large", SMALL | {"aspp_channels": 8}),
}
# With `model.multi_scale` or without, except for the last two.
LOSSES = {
    "image": {},
    "rows": {"chunk_rows": 8},
    "rows, images": {"chunk_rows": 8, "normalization": "images"},
    "scores": {"upsample_logits": False},
    "scores, images": {"upsample_logits": False, "normalization": "images"},
    "focal": {"cross_entropy": 0.0, "focal": 1.0, "upsample_logits": False},
    "dice": {"cross_entropy": 0.0, "dice": 1.0},
    "lovasz": {"cross_entropy": 0.0, "lovasz": 1.0, "upsample_logits": False},
    "hard": {"hard_pixel_fraction": 0.5, "upsample_logits": False},
    "every scale": {"upsample_logits": False, "supervise_all_scales": True},
    "every scale, images": {
        "upsample_logits": False,
        "supervise_all_scales": True,
        "normalization": "images",
    },
}
IMAGES = jax.ShapeDtypeStruct((BATCH, *SIZE, 3), jnp.uint8)
LABELS = jax.ShapeDtypeStruct((BATCH, *SIZE), jnp.uint8)


def run_network(model, variables, images):
    outputs, _ = model.apply(
        variables,
        images,
        train=True,
        endpoints=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    return Outputs(*outputs)


def objective_of(architecture, options):
    config = configs.default().loss
    config.update(options)
    return make_objective(config, architecture)


def used(function, *arguments):
    """Returns a function that maps outputs to the names of the arguments they depend on."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)

    def behind(wanted):
        _, needed = partial_eval.dce_jaxpr(traced.jaxpr, wanted)
        leaves = jax.tree_util.tree_leaves_with_path(arguments)
        names = [jax.tree_util.keystr(path) for path, _ in leaves]
        return dict(zip(names, needed, strict=True))

    return behind, shapes


QUICK = ("v1, MSc", "v3", "v3+")


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, NETWORKS))
def test_every_parameter_is_in_every_loss(name):
    architecture, keywords = NETWORKS[name]
    for scales in ((), SCALES) if name in ("v2", "v3") else ((),):
        model = create_model(architecture, **keywords, multi_scale=scales)
        variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
        parameters, outputs = used(functools.partial(run_network, model), variables, IMAGES)
        for options in LOSSES.values():
            if options.get("supervise_all_scales") and not scales:
                continue
            objective = objective_of(model.architecture, options)
            behind, _ = used(objective, outputs, LABELS, LABELS, jnp.int32(0))
            wanted = [flag for key, flag in behind([True]).items() if key.startswith("[0]")]
            found = parameters(wanted)
            trainable = {
                key: flag for key, flag in found.items() if key.startswith("[0]['params']")
            }
            assert trainable
            unused = [key for key, flag in trainable.items() if not flag]
            assert not unused, (options, scales, unused)


@pytest.mark.slow
@pytest.mark.parametrize("every_scale", [False, True])
def test_gradients_on_the_scores_reach_every_parameter(every_scale):
    """Checks with numbers what the test above checks with the structure of the program."""
    architecture, keywords = NETWORKS["v3, pooling"]
    model = create_model(architecture, **keywords, multi_scale=(1, 0.5) if every_scale else ())
    options = {"upsample_logits": False, "supervise_all_scales": every_scale}
    objective = objective_of(model.architecture, options)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, IMAGES.shape, dtype=np.uint8)
    labels = random.integers(0, CLASSES, LABELS.shape).astype(np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)

    def drawn(leaf):
        if len(leaf.shape) < 2:
            return jnp.ones(leaf.shape)
        return random.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)

    variables = jax.tree.map(drawn, shapes)

    def loss(params):
        outputs = run_network(model, variables | {"params": params}, images)
        return objective(outputs, labels, labels, jnp.int32(0))

    slopes = run_once(jax.grad(loss), variables["params"])
    still = [
        jax.tree_util.keystr(path)
        for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
        if not np.asarray(slope).any()
    ]
    assert not still
