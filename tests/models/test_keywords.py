"""A keyword changes the network or is refused, for every architecture and every keyword."""

import contextlib
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from selection import slow_unless

from deeplab_jax import ops
from deeplab_jax.architecture import Architecture
from deeplab_jax.architecture_fields import KEYWORDS
from deeplab_jax.backbones import BACKBONES, BackboneEntry, Feature
from deeplab_jax.backbones.atrous import strides_to_rates
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import ConvNorm, Form, Normalization
from deeplab_jax.models import DeepLab, create_classifier, create_model, list_models
from deeplab_jax.models.architectures import resolve
from deeplab_jax.models.keywords import absent_values, check_backbone, read_keywords

# Larger than the crop, so that a window of the crop is not the whole map; even, so that paddings
# differ.
SIZE = (66, 98)
FIELDS = [field.name for field in dataclasses.fields(Architecture)]
NORMALIZATION = Normalization(decay=0.9, epsilon=1e-3)
LOW_LEVEL = tuple(Feature(f"conv{n}", 8, 2**n) for n in (2, 3, 4))


class Tiny(nn.Module):
    """Replacement for every backbone that is quick to trace."""

    output_stride: int
    normalization: Normalization
    form: Form
    stride_placement: str = "slim"

    @nn.compact
    def __call__(self, image, train):
        endpoints, hidden = {}, image
        for number, unit in enumerate(strides_to_rates([2] * 5, self.output_stride, "tiny"), 1):
            hidden = endpoints[f"conv{number}"] = ConvNorm(
                8,
                self.normalization,
                stride=unit.stride,
                rate=unit.rate,
                same_padding=self.stride_placement == "slim",
                form=self.form,
                name=f"conv{number}",
            )(hidden, train)
        return endpoints | {"output": hidden}


ENTRY = BackboneEntry(
    Tiny, ("stride_placement",), LOW_LEVEL, NORMALIZATION, "minus_one_one", LOW_LEVEL[2], LOW_LEVEL
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", ENTRY)


# One value that no network has by default, or of two the one that it has not.
OTHER = {
    "backbone": ("vgg_16",),
    "num_classes": (5,),
    "in_channels": (4,),
    "image_dtype": ("uint16",),
    "pixel_mean": ((1.0, 2.0, 3.0),),
    "pixel_std": ((1.0, 2.0, 3.0),),
    "output_stride": (4,),
    "head": ("plain", "pooling"),
    "fusion": ("sum", "concat"),
    "fov": ("4x4",),
    "fc_channels": (12,),
    "atrous_rates": ((5,),),
    "aspp": ("small",),
    "multi_grid": ((1, 2),),
    "cascade_blocks": (5,),
    "image_pooling": ("none", "global"),
    "pooling_crop": ((33, 33),),
    "aspp_channels": (12,),
    "projection_size": (3,),
    "dropout_rate": (0.3,),
    "decoder": ("v3plus", "none"),
    "low_level_channels": (6,),
    "decoder_convs": (((3, 6),),),
    "decoder_dropout": ((0.3, 0.3),),
    "low_level_source": ("block",),
    "separable": (True, False),
    "separable_norm": (False,),
    "refine_encoder": (True, False),
    "refine": (True, False),
    "multi_scale": ((1, 0.5),),
    "depth_multiplier": (0.5,),
    "width_divisor": (8,),
    "last_convolution": (True,),
    "pad_first_convolution": (False,),
    "pad_before_expansion": (True,),
    "stochastic_depth": (0.5,),
    "aux_head": (True, False),
    "stride_placement": ("torchvision", "slim"),
    "rate_start": ("same_unit",),
    "align_corners": (True, False),
    "multiple_of_stride": (True,),
    "preprocessing": ("none",),
    "batch_norm_decay": (0.5,),
    "batch_norm_epsilon": (0.5,),
    "frozen_batch_norm": (True, False),
    "ghost_batch_size": (2,),
    "widths": ((("backbone/conv1", 4),),),
    "quantization": ("int8",),
    "dtype": ("bfloat16",),
}
# Heads, decoders and modes that no name has by default, on deeplab_v3 unless it says otherwise.
VARIANTS = {
    "large_fov direct": {"head": "large_fov", "fc_channels": 0},
    "summed": {"fusion": "sum"},
    "summed fc": {"fusion": "sum", "fc_channels": 8},
    "no branches": {"atrous_rates": ()},
    "crop": {"image_pooling": "crop", "pooling_crop": (49, 49)},
    "pooling": {"head": "pooling"},
    "plain": {"head": "plain"},
    "plain refine": {"head": "plain", "refine": True},
    "plain aux": {"head": "plain", "aux_head": True},
    "spp": {"head": "spp"},
    "lr_aspp": {"head": "lr_aspp"},
    "lr_aspp crop": {"head": "lr_aspp", "image_pooling": "crop", "pooling_crop": (49, 49)},
    "dpc": {"head": "dpc"},
    "decoder": {"head": "plain", "decoder": "v3plus"},
    "two stages": {"head": "plain", "decoder": "conv2_conv3"},
    "no convolutions": {"head": "plain", "decoder": "v3plus", "decoder_convs": ()},
    "msc": {"head": "plain", "decoder": "msc"},
    "frozen": {"head": "pooling", "frozen_batch_norm": True},
    "refined": {"head": "plain", "refine_encoder": True},
    "bare separable": {"head": "plain", "decoder": "v3plus", "separable": True},
}
# Other programs of the same function: batch norm of groups that uses the moving averages, and maps
# that are joined at once because no convolution follows. The decay of frozen averages waits.
# LR-ASPP without a window is refused under the name `none`, as it pools the whole map.
EQUAL = {
    ("frozen", "ghost_batch_size"),
    ("frozen", "batch_norm_decay"),
    ("no convolutions", "separable"),
    ("lr_aspp crop", "image_pooling"),
}
# Concerns the sizes of images, not what is computed from one (test_codebases.py).
OF_SIZES = {"multiple_of_stride"}
BASES = {name: (name, {"backbone": "tiny"}) for name in list_models()} | {
    name: ("deeplab_v3", {"backbone": "tiny"} | keywords) for name, keywords in VARIANTS.items()
}


def program(network, train, portable=True):
    """Returns the traced program as text, with its constants and the variables' shapes."""
    model = DeepLab(network)
    image = jax.ShapeDtypeStruct((2, *SIZE, network.in_channels), jnp.uint8)
    key = jax.random.key(0)
    with ops.dispatching(export=True) if portable else contextlib.nullcontext():
        variables = jax.eval_shape(model.init, key, image)

        def function(variables, key, image):
            options = {"train": train, "endpoints": True, "rngs": {"dropout": key}}
            return model.apply(variables, image, mutable=["batch_stats"], **options)

        traced = jax.make_jaxpr(function)(variables, key, image)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(traced))
    return text, [np.asarray(constant).tobytes() for constant in traced.consts], str(variables)


def tried(architecture, keywords):
    """Returns the network, or the message with which it is refused."""
    try:
        return resolve(architecture, **keywords), ""
    except DeepLabError as error:
        return None, str(error)


def other_value(keyword, network):
    now = getattr(network, keyword, None)
    return next(value for value in OTHER[keyword] if value != now)


def test_every_keyword_is_tried():
    assert set(OTHER) == set(KEYWORDS)


# It reads more keywords than the others, which refuse most of them.
QUICK = ("deeplab_v3plus",)


@pytest.mark.parametrize("base", slow_unless(QUICK.__contains__, BASES))
def test_a_keyword_changes_the_program_or_is_refused(base):
    architecture, keywords = BASES[base]
    network = resolve(architecture, **keywords)
    before = {train: program(network, train) for train in (True, False)}
    assert program(network, True) == before[True]
    wrong = []
    for keyword in KEYWORDS:
        value = other_value(keyword, network)
        changed, message = tried(architecture, keywords | {keyword: value})
        rest = dict(keywords)
        while named := {name for name, own in rest.items() if f"{name}={own!r}" in message} - {
            "backbone",
            "head",
        }:
            # Keywords of the base that concern a part which is gone now.
            rest = {name: own for name, own in rest.items() if name not in named}
            changed, message = tried(architecture, rest | {keyword: value})
        refused = changed is None
        if refused:
            named = f"{keyword.replace('_', '[_-]')}|{re.escape(str(value))}"
            assert re.search(named, message), message
            assert re.search("legal|leave|set|omit|give|use|requires|must", message), message
            changed = _forced(network, keyword, value)
        if changed is None:
            continue
        modes = (False,) if keyword == "quantization" else (True, False)
        # What changes training need not change inference.
        same = all(program(changed, train) == before[train] for train in modes)
        if same != refused and (base, keyword) not in EQUAL and keyword not in OF_SIZES:
            wrong.append((keyword, value, "refused" if refused else "accepted"))
    assert not wrong


def _forced(network, keyword, value):
    """Returns the network with a refused keyword; None where there is no such network."""
    try:
        forced = dataclasses.replace(network, **{keyword: value})
        check_backbone(forced)
    except (DeepLabError, TypeError):
        return None
    return forced


@pytest.mark.parametrize("base", BASES)
def test_keywords_equal_to_the_resolved_value_are_accepted(base):
    architecture, keywords = BASES[base]
    network = resolve(architecture, **keywords)
    assert resolve(architecture, **network.describe()) == network
    for keyword, value in absent_values(network).items():
        assert resolve(architecture, **(keywords | {keyword: value})) == network
    assert read_keywords(network) <= set(FIELDS)


REAL = {
    "vgg_16": ("deeplab_v1", {}),
    "resnet_18": ("deeplab_v3", {"head": "plain", "backbone": "resnet_18"}),
    "cascade": ("deeplab_v3", {"head": "cascade", "backbone": "resnet_18"}),
    "resnet_50": ("deeplab_v2", {"backbone": "resnet_50"}),
    "xception_41": ("deeplab_v3plus", {"backbone": "xception_41"}),
    "mobilenet_v2": (
        "deeplab_v3",
        {"head": "plain", "backbone": "mobilenet_v2", "depth_multiplier": 0.35},
    ),
    "mobilenet_v3_small": ("deeplab_v3", {"head": "plain", "backbone": "mobilenet_v3_small"}),
}
OF_BACKBONES = (
    *("multi_grid", "cascade_blocks", "depth_multiplier", "width_divisor", "stride_placement"),
    *("batch_norm_epsilon", "batch_norm_decay", "frozen_batch_norm", "stochastic_depth"),
    *("rate_start", "last_convolution", "pad_first_convolution", "pad_before_expansion"),
)


@pytest.mark.parametrize("base", slow_unless(("cascade",).__contains__, REAL))
def test_a_keyword_of_the_backbone_changes_it_or_is_refused(base):
    architecture, keywords = REAL[base]
    network = resolve(architecture, **keywords)
    # The portable operations have no loops.
    before = program(network, True, portable=False)
    accepted = set()
    for keyword in OF_BACKBONES:
        value = other_value(keyword, network)
        if keyword == "multi_grid" and "resnet_50" in network.backbone:
            value = (1, 2, 4)
        changed, message = tried(architecture, keywords | {keyword: value})
        if changed is None:
            assert re.search(keyword.replace("_", "[_-]"), message), message
            continue
        accepted.add(keyword)
        assert program(changed, True, portable=False) != before, keyword
    entry = BACKBONES[network.backbone]
    options = set(entry.options) - (set() if base == "cascade" else {"cascade_blocks"})
    options -= {"rate_start"} if base == "resnet_50" else set()
    norm = {"batch_norm_epsilon", "batch_norm_decay", "frozen_batch_norm"}
    assert accepted == options | (norm if entry.normalization else set())


@pytest.mark.parametrize(
    ("architecture", "keywords", "named"),
    [
        ("deeplab_v2", {"image_pooling": "global"}, ["image_pooling", "'none'"]),
        ("deeplab_v2", {"separable": True}, ["separable", "fusion='concat'", "decoder"]),
        ("deeplab_v2", {"dropout_rate": 0.5}, ["dropout_rate", "fc_channels", "legal here: 0.0"]),
        (
            "deeplab_v3",
            {"low_level_channels": 32},
            ["low_level_channels", "decoder='v3plus'", "48"],
        ),
        ("deeplab_v3", {"head": "spp", "image_pooling": "none"}, ["image_pooling", "'global'"]),
        ("deeplab_v3", {"pooling_crop": (65, 65)}, ["pooling_crop", "image_pooling='crop'"]),
        ("deeplab_v1", {"frozen_batch_norm": True}, ["frozen_batch_norm", "vgg_16"]),
        ("deeplab_v3", {"head": "plain", "aspp": "small"}, ["aspp='small'", "head='aspp'"]),
        (
            "deeplab_v2",
            {"separable": True, "low_level_channels": 8},
            ["separable=True", "low_level_channels=8"],
        ),
        (
            "deeplab_v3",
            {"backbone": "mobilenet_v2", "stride_placement": "caffe"},
            ["stride_placement", "'slim' or 'torchvision'"],
        ),
        (
            "deeplab_v2",
            {"rate_start": "same_unit"},
            ["rate_start", "stride_placement='caffe'", "'next_unit'"],
        ),
    ],
)
def test_a_refusal_names_the_keyword_the_reason_and_what_is_legal(architecture, keywords, named):
    with pytest.raises(DeepLabError) as caught:
        create_model(architecture, **keywords)
    assert all(word in str(caught.value) for word in named), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keywords",
    [
        {"image_pooling": "none", "separable": False, "dropout_rate": 0.0, "aspp_channels": 256},
        {"low_level_channels": 48, "pooling_crop": [513, 513], "fov": "large"},
        {"aspp": "large"},
        {"atrous_rates": [6, 12, 18, 24], "ghost_batch_size": 0},
    ],
)
def test_keywords_that_state_what_the_second_version_has_stay_legal(keywords):
    assert create_model("deeplab_v2", **keywords) == create_model("deeplab_v2")


@pytest.mark.parametrize(
    "keyword", ["decoder", "aux_head", "refine", "multi_scale", "align_corners", "widths"]
)
def test_classifiers_of_images_refuse_keywords_of_other_parts(keyword):
    own = create_classifier("mobilenet_v2")
    value = other_value(keyword, own.architecture)
    with pytest.raises(DeepLabError, match=keyword):
        create_classifier("mobilenet_v2", **{keyword: value})
    stated = getattr(own.architecture, keyword)
    assert create_classifier("mobilenet_v2", **{keyword: stated}) == own


@pytest.mark.parametrize("keyword", ["head", "output_stride"])
def test_classifiers_of_images_have_one_head_and_output_stride(keyword):
    with pytest.raises(DeepLabError, match=keyword):
        create_classifier(
            "mobilenet_v2", **{keyword: {"head": "aspp", "output_stride": 8}[keyword]}
        )
