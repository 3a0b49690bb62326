"""Tables and names of the EfficientNets and of MobileNetV4."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from deeplab_jax.backbones import efficientnet_networks, find_backbone
from deeplab_jax.layers import StochasticDepth, record_inputs
from deeplab_jax.models.image_classifier import create_classifier
from deeplab_jax.pretrained.assignment import NORM_LEAVES
from deeplab_jax.pretrained.conversion import identify
from deeplab_jax.pretrained.name_maps import efficientnet as names
from deeplab_jax.pretrained.name_maps import translate
from deeplab_jax.pretrained.weights import PublishedWeights

SLOW = pytest.mark.slow
# Number of parameters of the published files, and checksums of the names and sizes of their arrays.
PUBLISHED = {
    "tf_efficientnet_lite0": (
        4652008,
        "fc54171330fafb2f7a9498210d5565a6eba0873385d2820fba7d05f4ed8912fd",
    ),
    "tf_efficientnet_lite1": (
        5416680,
        "34b416295301e68f6adeeb6b5f7f87aef88a7f6bc6add53cad74a53b4e520bca",
    ),
    "tf_efficientnet_lite2": (
        6092072,
        "778e984f08bda0991d74000cd2a634e2a9fbc23888c7e82a607c81d6401bbcca",
    ),
}


def ported_arrays(name):
    """Returns arrays of an image classifier by name in EfficientNet-PyTorch."""
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8)
    model = create_classifier(f"timm/{name}", num_classes=1000)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    convention, found = names.EFFICIENTNET_PYTORCH, {}
    rules = convention.rules(names.Identified("", {"backbone": f"timm/{name}"}))
    for (_, *module, leaf), array in traverse_util.flatten_dict(shapes).items():
        is_norm = module[-1] == "norm"
        scopes = translate("/".join(module[: -1 if is_norm else None]), rules)
        (template,) = convention.leaves[NORM_LEAVES[leaf] if is_norm else leaf]
        shape = array.shape
        if len(shape) == 4:
            shape = (shape[3], shape[2], *shape[:2])
        found[template.format(**scopes._asdict())] = np.broadcast_to(np.float32(0), shape)
    return found


@pytest.mark.parametrize(
    "name", [n if n.endswith("0") else pytest.param(n, marks=SLOW) for n in PUBLISHED]
)
def test_names_and_sizes_are_those_of_the_published_files(name):
    arrays = ported_arrays(name)
    listing = "".join(f"{key} {array.size}\n" for key, array in sorted(arrays.items()))
    parameters = sum(array.size for key, array in arrays.items() if ".running_" not in key)
    assert (parameters, hashlib.sha256(listing.encode()).hexdigest()) == PUBLISHED[name]
    convention, found = identify(PublishedWeights(arrays, "pytorch"), name)
    assert convention.name == "EfficientNet-PyTorch"
    assert found.overrides == {"backbone": f"timm/{name}", "num_classes": 1000}


def test_networks_with_the_same_padding_are_told_apart():
    signatures = [
        names._signature(network)
        for network in efficientnet_networks.NETWORKS.values()
        if not network.tensorflow
    ]
    assert len(set(signatures)) == len(signatures) == 17


def test_stochastic_depth_rises_linearly_with_the_unit():
    rates = {}
    module = find_backbone("timm/mobilenetv4_conv_small_035").module(stochastic_depth=0.2)
    image = jnp.zeros((1, 33, 33, 3))
    record_inputs(
        lambda: jax.eval_shape(lambda: module.init(jax.random.key(0), image, False)),
        lambda layer: isinstance(layer, StochasticDepth),
        lambda layer, _: rates.update({layer.path[0]: layer.rate}),
    )
    # Units with a residual branch among the 4 + 6 + 6 + 1 units, as in timm.
    assert rates == pytest.approx({
        **{f"stage_3/block_{number + 1}": 0.2 * (4 + number) / 17 for number in range(1, 6)},
        **{f"stage_4/block_{number + 1}": 0.2 * (10 + number) / 17 for number in range(1, 6)},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "widths", "channels"),
    [
        # arXiv 1905.11946 and the released code; the widths are multiples of 8.
        ("efficientnet_b0", (16, 24, 40, 80, 112, 192, 320), 1280),
        ("tf_efficientnet_b4", (24, 32, 56, 112, 160, 272, 448), 1792),
        ("efficientnet_lite4", (24, 32, 56, 112, 160, 272, 448), 1280),
        ("efficientnetv2_m", (24, 48, 80, 160, 176, 304, 512), 1280),
        ("mobilenetv4_conv_large", (48, 96, 192, 512, 960), 1280),
    ],
)
def test_widths_of_stages(name, widths, channels):
    network = efficientnet_networks.NETWORKS[name]
    stages = efficientnet_networks.units(network)
    assert tuple(rows[-1].features for rows in stages) == widths
    assert efficientnet_networks.head_channels(network) == channels
    strides = [feature.stride for feature in efficientnet_networks.features(network)]
    assert strides == [4, 8, 16, 32]
