"""Names, shapes and dtypes of every variable of every published network."""

import hashlib

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util
from golden.recording import recorded
from heads import HEADS

from deeplab_jax import ops
from deeplab_jax.backbones import BACKBONES
from deeplab_jax.models import create_model, list_models
from deeplab_jax.pretrained import list_pretrained

WHOLE = {
    "deeplab_v1": {},
    "deeplab_v2": {},
    "deeplab_v3": {"backbone": "resnet_50_beta", "multi_grid": (1, 2, 4)},
    "deeplab_v3plus": {},
    "torchvision/deeplabv3_mobilenet_v3_large": {},
}
# Names of HEADS whose variables are not recorded.
UNRECORDED = ("large_fov", "large_fov_direct", "aspp", "aspp_crop")


def listing(architecture, keywords):
    """Returns a line for each variable: collection and path, dtype and shape."""
    model = create_model(architecture, **keywords)
    image = jax.ShapeDtypeStruct((1, 65, 65, model.architecture.in_channels), jnp.uint8)
    with ops.dispatching(export=True):
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
    flat = traverse_util.flatten_dict(variables, sep="/")
    return "".join(
        f"{path} {leaf.dtype}{list(leaf.shape)}\n" for path, leaf in sorted(flat.items())
    )


def summary(text):
    return {"variables": text.count("\n"), "sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize("architecture", WHOLE)
def test_every_variable_of_a_papers_network(architecture):
    found = listing(architecture, WHOLE[architecture])
    assert recorded(f"trees/{architecture.replace('/', '_')}.txt", found) == found


def test_every_head_and_decoder_on_a_small_backbone():
    found = {
        name: summary(listing("deeplab_v3", {"backbone": "resnet_18"} | keywords))
        for name, keywords in {"cascade": {"head": "cascade"}, **HEADS}.items()
        if name not in UNRECORDED
    }
    assert recorded("trees/heads.json", found) == found


@pytest.mark.slow
def test_every_architecture_on_every_backbone():
    found = {}
    for architecture in list_models():
        # tests/backbones/test_timm_backbones.py compares the variables of the others with timm.
        for backbone in (name for name in BACKBONES if not name.startswith("timm/")):
            keywords = {"backbone": backbone}
            torchvision = architecture.startswith("torchvision/")
            if torchvision and "stride_placement" not in BACKBONES[backbone].options:
                keywords["stride_placement"] = None
            found[f"{architecture} {backbone}"] = summary(listing(architecture, keywords))
    assert recorded("trees/backbones.json", found) == found


@pytest.mark.slow
def test_every_network_of_the_catalog():
    found = {
        name: summary(listing(entry.architecture, dict(entry.overrides)))
        for name, entry in list_pretrained().items()
        if entry.architecture in list_models()
    }
    assert recorded("trees/catalog.json", found) == found
