"""Strides and atrous rates of all convolutions in the built networks."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from deeplab_jax.backbones import find_backbone
from deeplab_jax.backbones.atrous import strides_to_rates
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import ConvNorm, Convolution


def units(backbone, output_stride, **options):
    """Returns {path: (stride, rate)} of the convolutions larger than 1×1 that a backbone runs."""
    found = {}

    def note(call, arguments, keywords, context):
        module = context.module
        spatial = isinstance(module, ConvNorm | Convolution) and module.kernel_size > 1
        if spatial:
            found["/".join(module.path)] = (module.stride, module.rate)
        return call(*arguments, **keywords)

    module = find_backbone(backbone).module(output_stride=output_stride, **options)
    with nn.intercept_methods(note):
        image = jax.ShapeDtypeStruct((1, 33, 33, 3), np.float32)
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), image)
    return found


# facts 1.6: layers by number; what is not named here has stride 1 and rate 1.
@pytest.mark.parametrize(
    ("output_stride", "strided", "rates"),
    [
        (32, {1, 3, 5, 8, 15}, {}),
        (16, {1, 3, 5, 8}, {2: {16, 17, 18}}),
        (8, {1, 3, 5}, {2: {9, 10, 11, 12, 13, 14, 15}, 4: {16, 17, 18}}),
        (4, {1, 3}, {2: {6, 7, 8}, 4: {9, 10, 11, 12, 13, 14, 15}, 8: {16, 17, 18}}),
    ],
)
def test_mobilenet_v2(output_stride, strided, rates):
    rate_of = {layer: rate for rate, layers in rates.items() for layer in layers}
    expected = {
        f"layer_{layer}" + ("/depthwise" if layer > 1 else ""): (
            2 if layer in strided else 1,
            rate_of.get(layer, 1),
        )
        for layer in range(1, 19)
    }
    assert units("mobilenet_v2", output_stride) == expected


# facts 1.3: (stride of a block's last unit, rate) of blocks 1 to 3 and the rates of block 4.
@pytest.mark.parametrize(
    ("output_stride", "blocks", "block4", "multi_grid"),
    [
        (32, [(2, 1), (2, 1), (2, 1)], [1, 2, 4], (1, 2, 4)),
        (16, [(2, 1), (2, 1), (1, 1)], [2, 4, 8], (1, 2, 4)),
        (16, [(2, 1), (2, 1), (1, 1)], [2, 2, 2], (1, 1, 1)),
        (8, [(2, 1), (1, 1), (1, 2)], [4, 8, 16], (1, 2, 4)),
        (4, [(1, 1), (1, 2), (1, 4)], [8, 8, 8], (1, 1, 1)),
    ],
)
def test_resnet(output_stride, blocks, block4, multi_grid):
    expected = {"stem_1": (2, 1), "stem_2": (1, 1), "stem_3": (1, 1)}
    for block, (size, (stride, rate)) in enumerate(zip((3, 4, 6), blocks, strict=True), start=1):
        for unit in range(1, size + 1):
            path = f"block{block}/unit_{unit}/conv2"
            expected[path] = (stride if unit == size else 1, rate)
    expected |= {f"block4/unit_{n}/conv2": (1, rate) for n, rate in enumerate(block4, start=1)}
    assert units("resnet_50_beta", output_stride, multi_grid=multi_grid) == expected


# facts 1.2, 5.3, 8: what the first unit of a block runs at where its stride is lost.
@pytest.mark.parametrize(
    ("placement", "output_stride", "firsts", "rests"),
    [
        ("caffe", 32, [(1, 1), (1, 1), (1, 1)], [1, 1, 1]),
        ("caffe", 8, [(1, 1), (1, 2), (1, 4)], [1, 2, 4]),
        ("torchvision", 32, [(2, 1), (2, 1), (2, 1)], [1, 1, 1]),
        ("torchvision", 8, [(2, 1), (1, 1), (1, 2)], [1, 2, 4]),
        ("torchvision", 16, [(2, 1), (2, 1), (1, 1)], [1, 1, 2]),
    ],
)
def test_resnet_with_its_strides_in_first_units(placement, output_stride, firsts, rests):
    found = units("resnet_50", output_stride, stride_placement=placement)
    for block, first, rest in zip((2, 3, 4), firsts, rests, strict=True):
        assert found[f"block{block}/unit_1/conv2"] == first
        others = {
            pair
            for path, pair in found.items()
            if path.startswith(f"block{block}/") and "unit_1/" not in path
        }
        assert others == {(1, rest)}


def test_resnet_18_has_both_convolutions_at_the_rate_and_the_stride_on_the_second():
    found = units("resnet_18_beta", 16, multi_grid=(1, 2))
    assert [found[f"block2/unit_{n}/conv{c}"] for n in (1, 2) for c in (1, 2)] == [
        *[(1, 1)] * 3,
        (2, 1),
    ]
    assert [found[f"block4/unit_{n}/conv{c}"][1] for n in (1, 2) for c in (1, 2)] == [2, 2, 4, 4]


# facts 1.3: every block of the cascade doubles the rate, and the multi-grid is on all of them.
@pytest.mark.parametrize(
    ("output_stride", "bases", "strides"),
    [(16, [2, 4, 8, 16], [1, 1, 1]), (256, [1, 1, 1, 1], [2, 2, 2]), (64, [1, 1, 2, 4], [2, 1, 1])],
)
def test_cascade(output_stride, bases, strides):
    found = units("resnet_50", output_stride, cascade_blocks=7, multi_grid=(1, 2, 1))
    for block, base in zip((4, 5, 6, 7), bases, strict=True):
        rates = [found[f"block{block}/unit_{unit}/conv2"][1] for unit in (1, 2, 3)]
        assert rates == [base, 2 * base, base]
    assert [found[f"block{block}/unit_3/conv2"][0] for block in (4, 5, 6)] == strides
    assert found["block7/unit_3/conv2"][0] == 1


# facts 1.1: at output stride 8 the poolings 4 and 5 keep the size and conv5 has rate 2.
@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [(8, (1, 1, 1, 1, 2)), (16, (1, 1, 1, 1, 1)), (4, (1, 1, 1, 2, 4))],
)
def test_vgg(output_stride, rates):
    found = units("vgg_16", output_stride)
    by_block = {path[4]: rate for path, (_, rate) in found.items()}
    assert tuple(by_block.values()) == rates
    assert len(found) == 13


# facts 1.5: all three separable convolutions of a module have its rate, the third its stride.
@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [
        (
            32,
            {"entry_flow/block3": (2, 1), "middle_flow/unit_5": (1, 1), "exit_flow/block1": (2, 1)},
        ),
        (16, {"exit_flow/block1": (1, 1), "exit_flow/block2": (1, 2), "entry_flow/block2": (2, 1)}),
        (
            8,
            {
                "entry_flow/block3": (1, 1),
                "middle_flow/unit_1": (1, 2),
                "exit_flow/block1": (1, 2),
                "exit_flow/block2": (1, 4),
            },
        ),
    ],
)
def test_xception(output_stride, expected):
    found = units("xception_65", output_stride)
    for name, (stride, rate) in expected.items():
        convolutions = [found[f"{name}/separable_conv{n}/depthwise"] for n in (1, 2, 3)]
        assert convolutions == [(1, rate), (1, rate), (stride, rate)]


@pytest.mark.parametrize(
    ("placement", "lost", "after"), [("slim", (1, 1), (1, 2)), ("torchvision", (1, 2), (1, 2))]
)
def test_mobilenet_v3(placement, lost, after):
    found = units("mobilenet_v3_large", 16, stride_placement=placement)
    depthwise = [found[f"layer_{n}/depthwise"] for n in (13, 14, 15, 16)]
    assert depthwise == [(1, 1), lost, after, after]


# In timm, the first unit of a stage without its stride keeps the rate of the stage before.
@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (
            "timm/convnext_atto",
            {
                "stage_2/downsample/patches": (2, 1),
                "stage_3/downsample/patches": (1, 1),
                "stage_3/block_1/depthwise": (1, 2),
                "stage_4/downsample/patches": (1, 2),
                "stage_4/block_1/depthwise": (1, 4),
            },
        ),
        (
            "timm/regnety_002",
            {
                "stage_2/block_1/conv2": (2, 1),
                "stage_3/block_1/conv2": (1, 1),
                "stage_3/block_2/conv2": (1, 2),
                "stage_4/block_1/conv2": (1, 2),
                "stage_4/block_7/conv2": (1, 4),
            },
        ),
        (
            "timm/resnet18d",
            {
                "block3/unit_1/conv1": (1, 1),
                "block3/unit_1/conv2": (1, 2),
                "block4/unit_1/conv1": (1, 2),
                "block4/unit_1/conv2": (1, 4),
            },
        ),
    ],
)
def test_backbones_of_timm_at_output_stride_8(backbone, expected):
    found = units(backbone, 8)
    assert {path: found[path] for path in expected} == expected


@pytest.mark.parametrize("output_stride", [12, 64])
def test_an_illegal_output_stride_names_the_legal_ones(output_stride):
    with pytest.raises(
        DeepLabError,
        match=r"net does not support output_stride=\d+; it must be one of 4, 8, 16, 32$",
    ):
        strides_to_rates([2, 2, 2, 1, 2, 2, 1], output_stride, "net")
