"""Every architecture on every backbone at every output stride, by shapes alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import run_once
from heads import HEADS
from random_variables import random_variables
from selection import one_of_each_family, slow_unless

from deeplab_jax import ops
from deeplab_jax.backbones import BACKBONES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model, list_models

ODD, EVEN = (65, 97), (64, 90)
# Backbones of timm under one architecture.
EVERY = [
    case
    for case in itertools.product(list_models(), one_of_each_family(BACKBONES), (4, 8, 16, 32))
    if case[0] == "deeplab_v3plus" or not case[1].startswith("timm/")
]


def shapes(model, size, **options):
    """Returns the shapes of the outputs for two images of `size`, without compiling the model."""
    image = jax.ShapeDtypeStruct((2, *size, model.architecture.in_channels), jnp.uint8)
    with ops.dispatching(export=True):
        outputs, _ = jax.eval_shape(
            lambda x: model.init_with_output(jax.random.key(0), x, **options), image
        )
    return outputs


def on_map(size, stride):
    return tuple(-(-length // stride) for length in size)


def _stands_for_others(case):
    """Every architecture on one backbone, every backbone under one architecture, every stride."""
    architecture, backbone, output_stride = case
    own = output_stride == (16 if architecture == "deeplab_v3plus" else 8)
    if backbone.startswith("timm/") and not backbone.endswith(("convnext_atto", "small_035")):
        return False
    every_stride = (architecture, backbone) in (
        ("deeplab_v3plus", "mobilenet_v2"),
        ("deeplab_v2", "vgg_16"),
        ("deeplab_v3", "resnet_50"),
    )
    return every_stride or (
        own and (backbone == "mobilenet_v2" or architecture == "deeplab_v3plus")
    )


@pytest.mark.parametrize(
    ("architecture", "backbone", "output_stride"), slow_unless(_stands_for_others, EVERY)
)
def test_logits_are_float32_and_as_large_as_the_image(architecture, backbone, output_stride):
    keywords = {"backbone": backbone, "output_stride": output_stride}
    if architecture == "deeplab_v2" and output_stride == 32:
        with pytest.raises(DeepLabError, match=r"1\.5, 3, 4\.5, 6; legal output strides: 4, 8, 16"):
            create_model(architecture, **keywords)
        return
    torchvision = architecture.startswith("torchvision/")
    if torchvision and "stride_placement" not in BACKBONES[backbone].options:
        with pytest.raises(DeepLabError, match=f"{backbone} .* set stride_placement=None"):
            create_model(architecture, **keywords)
        keywords["stride_placement"] = None
    model = create_model(architecture, **keywords)
    # VGG's poolings pad as Caffe's, which odd sizes alone leave alike.
    size = ODD if backbone == "vgg_16" or output_stride % 8 else EVEN
    if model.architecture.stride_placement == "caffe":
        size = ODD
    # The patches of a ConvNeXt do not reach beyond the map.
    if backbone.startswith("timm/convnext"):
        size = (64, 96)
    logits, maps = shapes(model, size, endpoints=True)
    assert (logits.shape, logits.dtype) == ((2, *size, 21), jnp.float32)
    assert maps["output"].shape[1:3] == on_map(size, output_stride)
    for feature in (*BACKBONES[backbone].low_level, *BACKBONES[backbone].intermediate):
        assert maps[feature.name].shape[-1] == feature.channels
        assert maps[feature.name].shape[1:3] == on_map(size, min(feature.stride, output_stride))
    fine, middle = (BACKBONES[backbone].low_level[index].stride for index in (0, 1))
    strides = {"none": output_stride, "v3plus": fine}
    stride = strides[model.architecture.decoder]
    if model.architecture.head == "lr_aspp":
        stride = min(middle, output_stride)
    assert maps["scores"].shape[1:3] == on_map(size, stride)
    if torchvision:
        assert (maps["auxiliary"].shape, maps["auxiliary"].dtype) == (logits.shape, jnp.float32)


@pytest.mark.parametrize("blocks", slow_unless(lambda blocks: blocks == 6, [5, 6, 7]))
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32, 64, 128, 256])
def test_cascades_reach_the_stride_of_their_last_block(blocks, output_stride):
    keywords = {"head": "cascade", "cascade_blocks": blocks, "output_stride": output_stride}
    if output_stride > 2 ** (blocks + 1):
        with pytest.raises(DeepLabError, match=f"output_stride={output_stride} must be one of"):
            create_model("deeplab_v3", backbone="resnet_50", **keywords)
        return
    model = create_model("deeplab_v3", backbone="resnet_50", **keywords)
    logits, maps = shapes(model, ODD, endpoints=True)
    assert logits.shape == (2, *ODD, 21)
    assert maps["scores"].shape[1:3] == on_map(ODD, output_stride)


@pytest.mark.parametrize(
    ("backbone", "size"),
    slow_unless(
        (("vgg_16", ODD), ("mobilenet_v3_small", EVEN)).__contains__,
        itertools.product(
            ["vgg_16", "resnet_18", "xception_41", "mobilenet_v3_small"], [ODD, EVEN]
        ),
    ),
)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_on_every_kind_of_backbone(head, backbone, size):
    model = create_model("deeplab_v3", backbone=backbone, **HEADS[head])
    assert shapes(model, size).shape == (2, *size, 21)


@pytest.mark.slow
def test_multi_scale_sizes_are_the_papers_and_scores_fuse_by_their_maximum():
    small = {"head": "plain", "depth_multiplier": 0.25}
    model = create_model("deeplab_v2", backbone="mobilenet_v2", multi_scale=(1, 0.75, 0.5), **small)
    single = create_model("deeplab_v2", backbone="mobilenet_v2", **small)
    _, maps = shapes(single, (321, 321), endpoints=True)
    assert maps["scores"].shape[1:3] == (41, 41)
    _, maps = shapes(model, (321, 321), endpoints=True)
    # DeepLab v2: 321, 241, 161 give 41, 31, 21.
    assert [maps[f"scores{suffix}"].shape[1] for suffix in ("", "_0.75", "_0.5")] == [41, 31, 21]
    images = np.random.default_rng(0).integers(0, 256, (1, 65, 65, 3), dtype=np.uint8)
    variables = random_variables(model, images)

    def both(variables, images):
        logits, maps = model.apply(variables, images, endpoints=True)
        return logits, maps["scores"], maps["scores_0.75"], maps["scores_0.5"]

    logits, *scores = map(np.asarray, run_once(both, variables, images))
    with jax.default_matmul_precision("highest"):
        resized = [np.asarray(ops.resize_bilinear(score, (9, 9))) for score in scores]
        expected = ops.resize_bilinear(jnp.asarray(np.max(resized, 0)), (65, 65))
    assert all(np.any(np.max(resized, 0) == score) for score in resized)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_bfloat16_computes_in_it_and_gives_float32_logits():
    model = create_model("deeplab_v3plus", backbone="mobilenet_v2", dtype="bfloat16")
    logits, maps = shapes(model, ODD, endpoints=True)
    assert (logits.dtype, maps["output"].dtype) == (jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize("shape", [(1, 33, 33, 4), (33, 33, 3), (1, 33, 33, 1)])
def test_images_of_another_form_are_refused(shape):
    model = create_model("deeplab_v3", backbone="mobilenet_v2")
    with pytest.raises(DeepLabError, match=r"must have shape \[N, H, W, 3\], got "):
        model.init(jax.random.key(0), jnp.zeros(shape, jnp.uint8))


def test_an_example_does_not_see_its_neighbours():
    small = {"depth_multiplier": 0.25, "aspp_channels": 8, "decoder_convs": ((3, 8),)}
    model = create_model("deeplab_v3plus", backbone="mobilenet_v2", **small)
    image, other = np.random.default_rng(0).integers(0, 256, (2, 33, 49, 3), dtype=np.uint8)
    batch = np.stack([image, other, image])
    first, second, third = run_once(model.apply, random_variables(model, batch), batch)
    assert np.std(first - second) > 0.01
    np.testing.assert_allclose(first, third, rtol=0, atol=1e-5 * np.abs(first).max())
