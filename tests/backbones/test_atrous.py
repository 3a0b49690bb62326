"""What becomes of the strides: every strided or atrous convolution of the networks as built."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from deeplab_jax.backbones import find_backbone
from deeplab_jax.backbones.atrous import strides_to_rates
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import ConvNorm


def units(backbone, output_stride, **options):
    """Returns {path: (stride, rate)} of the 3×3 convolutions that a backbone runs."""
    found = {}

    def note(call, arguments, keywords, context):
        module = context.module
        if isinstance(module, ConvNorm) and module.kernel_size == 3:
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


@pytest.mark.parametrize("output_stride", [12, 64])
def test_an_illegal_output_stride_names_the_legal_ones(output_stride):
    with pytest.raises(DeepLabError, match=r"net .* output stride \d+; legal: 4, 8, 16, 32$"):
        strides_to_rates([2, 2, 2, 1, 2, 2, 1], output_stride, "net")
