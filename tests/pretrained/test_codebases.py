"""Networks of other DeepLab codebases give the same logits here, and relatives are refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from pretrained.codebases import NETWORKS, at_pixels, draw, logits_of, read_listing
from pretrained.peers import images
from safetensors.numpy import save_file

from deeplab_jax.backbones import convnext, efficientnet_networks
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from deeplab_jax.pretrained import convert
from deeplab_jax.pretrained.conversion import identify
from deeplab_jax.pretrained.name_maps.huggingface import HUGGING_FACE
from deeplab_jax.pretrained.name_maps.timm_backbones import identify_backbone
from deeplab_jax.pretrained.readers import read_weights
from deeplab_jax.pretrained.weights import PublishedWeights

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if NETWORKS[name].slow]
FAST = [name for name in NETWORKS if not NETWORKS[name].slow]
CODEBASES = {
    "smp": "segmentation_models.pytorch",
    "vainf": "VainF/DeepLabV3Plus-Pytorch",
    "jfzhang95": "jfzhang95/pytorch-deeplab-xception",
    "mmseg": "mmsegmentation",
}


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_logits_equal_those_of_the_original_code(name, tmp_path):
    network, source = NETWORKS[name], tmp_path / "model.safetensors"
    shapes = read_listing(name)
    save_file({key: draw(key, shape) for key, shape in shapes.items()}, source)
    conversion = convert(source, overrides=network.overrides)
    assert conversion.convention == CODEBASES[name.partition("_")[0]]
    assert conversion.description.architecture == network.architecture
    assert network.found.items() <= conversion.description.overrides.items()
    unused = set(conversion.assignment.unused.values())
    assert unused <= {"it is a copy of an array of backbone.features"}
    model = conversion.description.create_model()
    apply = jax.jit(model.apply)
    # In the quick tests, one size of each network.
    expected = list(logits_of(name).items())[slice(None) if network.slow else slice(1, 2)]
    for size, logits in expected:
        found = at_pixels(np.asarray(apply(conversion.variables, images(size)))[0])
        assert np.abs(found - logits).max() < 1e-4 * np.abs(logits).max(), size


def weights_of(name, changes=None, **configuration):
    """Returns the arrays of a listing, all zero, some changed or (None) left out."""
    shapes = {**read_listing(name), **(changes or {})}
    arrays = {
        key: np.broadcast_to(np.float32(0), shape)
        for key, shape in shapes.items()
        if shape is not None
    }
    return PublishedWeights(arrays, "pytorch", configuration=configuration)


def overrides_of(weights, tmp_path):
    return identify(weights, tmp_path)[1].overrides


SMP = "smp_v3plus_mobilenet_v2"


def test_configurations_of_segmentation_models(tmp_path):
    settings = {"encoder_output_stride": 8, "decoder_atrous_rates": [3, 6, 9]}
    found = overrides_of(weights_of(SMP, decoder_aspp_dropout=0.2, **settings), tmp_path)
    assert (found["output_stride"], found["atrous_rates"]) == (8, (3, 6, 9))
    assert found["dropout_rate"] == 0.2
    bands = {"encoder.features.0.0.weight": (32, 4, 3, 3)}
    found = overrides_of(weights_of(SMP, bands), tmp_path)
    assert (found["in_channels"], found["pixel_std"]) == (4, (255.0,) * 4)


MODEL = {
    "backbone": {
        "dilations": [1, 1, 1, 2],
        "multi_grid": [1, 2, 4],
        "contract_dilation": True,
        "style": "pytorch",
    },
    "decode_head": {"align_corners": True, "dilations": [1, 6, 12, 18], "dropout_ratio": 0.2},
}


def test_configurations_of_mmsegmentation(tmp_path):
    name = "mmseg_v3plus_resnet50_d16_mg124"
    found = overrides_of(weights_of(name, model=MODEL), tmp_path)
    expected = {
        "output_stride": 16,
        "multi_grid": (1, 1, 2),
        "rate_start": "next_unit",
        "align_corners": True,
        "atrous_rates": (6, 12, 18),
        "dropout_rate": 0.0,
        "decoder_dropout": (0.0, 0.2),
        "preprocessing": "mean_std",
    }
    assert expected.items() <= found.items()
    settings = {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "bgr_to_rgb": True}
    found = overrides_of(weights_of(name, data_preprocessor=settings), tmp_path)
    assert (found["pixel_mean"], found["pixel_std"]) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_a_multi_grid_without_atrous_convolutions_in_the_backbone(tmp_path):
    backbone = MODEL["backbone"] | {"dilations": [1, 1, 1, 1]}
    found = overrides_of(weights_of(MM, model=MODEL | {"backbone": backbone}), tmp_path)
    assert (found["output_stride"], found["multi_grid"]) == (32, (1, 2, 4))


def test_the_preprocessor_of_the_model_takes_precedence(tmp_path):
    inner, outer = (
        {"mean": [mean] * 3, "std": [2.0] * 3, "bgr_to_rgb": True} for mean in (3.0, 4.0)
    )
    configuration = {"model": {"data_preprocessor": inner}, "data_preprocessor": outer}
    assert overrides_of(weights_of(MM, **configuration), tmp_path)["pixel_mean"] == (3.0,) * 3
    found = overrides_of(weights_of(MM, data_preprocessor={"bgr_to_rgb": True}), tmp_path)
    assert (found["pixel_mean"], found["pixel_std"]) == ((0.0,) * 3, (1.0,) * 3)


def test_settings_that_a_section_omits_have_the_defaults_of_mmsegmentation(tmp_path):
    model = {"backbone": {"type": "ResNetV1c"}, "decode_head": {"type": "ASPPHead"}}
    found = overrides_of(weights_of(MM, model=model), tmp_path)
    expected = {"output_stride": 32, "rate_start": "same_unit", "atrous_rates": (6, 12, 18)}
    assert expected.items() <= found.items()
    found = overrides_of(weights_of(MM), tmp_path)
    assert (found["output_stride"], found["rate_start"]) == (8, "next_unit")
    assert "atrous_rates" not in found


def test_values_that_a_configuration_of_hugging_face_omits_are_defaults():
    shapes = {
        "mobilenet_v2.conv_stem.first_conv.convolution.weight": (32, 3, 3, 3),
        "segmentation_head.classifier.convolution.weight": (21, 256, 1, 1),
    }
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    for configuration, stride in ({}, 16), ({"model_type": "mobilenet_v2"}, 32):
        weights = PublishedWeights(arrays, "pytorch", configuration=configuration)
        identified = HUGGING_FACE.identify(weights)
        assert identified.overrides["output_stride"] == stride


def efficientnet_arrays(name):
    """Returns the arrays by which a network of timm without a classifier is identified."""
    network = efficientnet_networks.NETWORKS[name]
    shapes = {"conv_stem": (efficientnet_networks.stem_channels(network), 3, 3, 3)}
    if network.squeeze:
        shapes["blocks.0.0.se.conv_reduce"] = (1, 1, 1, 1)
    for stage, rows in enumerate(efficientnet_networks.units(network)):
        for number, row in enumerate(rows):
            layer = "conv" if row.kind == efficientnet_networks.CONV else "conv_pwl"
            shapes[f"blocks.{stage}.{number}.{layer}"] = (row.features, 1, 1, 1)
    return {f"{scope}.weight": shape for scope, shape in shapes.items()}


@pytest.mark.parametrize("name", [n for n in efficientnet_networks.NETWORKS if n[:3] != "tf_"])
def test_encoders_of_timm_are_identified_by_their_last_unit(name):
    arrays = {key: np.empty(shape) for key, shape in efficientnet_arrays(name).items()}
    assert identify_backbone(arrays) == f"timm/{name}"


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_atto"])
def test_convnexts_are_identified_for_any_number_of_bands(name, bands):
    size = convnext.SIZES[name]
    shapes = {"stem.0.weight": (size.widths[0], bands, 4, 4)}
    for stage, depth in enumerate(size.depths):
        for block in range(depth):
            shapes[f"stages.{stage}.blocks.{block}.conv_dw.bias"] = (1,)
    if size.version == 2:
        shapes["stages.0.blocks.0.mlp.grn.weight"] = (1,)
    arrays = {key: np.empty(shape) for key, shape in shapes.items()}
    assert identify_backbone(arrays) == f"timm/{name}"


@pytest.mark.parametrize(
    ("configuration", "other"),
    [
        ({}, {"backbone": "timm/tf_efficientnet_b2"}),
        ({"encoder_name": "tu-efficientnet_b2"}, {}),
        ({"encoder_name": "tu-tf_efficientnet_b2"}, {}),
    ],
)
def test_the_padding_of_an_encoder_of_timm_is_assumed_if_it_has_no_name(
    configuration, other, tmp_path
):
    changes = {name: None for name in read_listing(SMP) if name.startswith("encoder.")}
    for name, shape in efficientnet_arrays("efficientnet_b2").items():
        changes["encoder.model." + name.replace("blocks.", "blocks_")] = shape
    identified = identify(weights_of(SMP, changes, **configuration), tmp_path)[1]
    assert identified.if_tensorflow == other
    named = configuration.get("encoder_name", "tu-efficientnet_b2").removeprefix("tu-")
    assert identified.overrides["backbone"] == f"timm/{named}"


def resnet_18_arrays():
    """Returns the shapes of the arrays of a ResNet-18 by which it is identified."""
    layers = [f"layer{b}.{unit}.conv{n}" for b in (1, 2, 3, 4) for unit in (0, 1) for n in (1, 2)]
    return {f"{layer}.weight": (8, 8, 3, 3) for layer in ["conv1", *layers]}


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnetblur18", resnet_18_arrays() | {"fc.weight": (1000, 512)}),
        (
            "mobilenetv4_conv_aa_medium",
            efficientnet_arrays("mobilenetv4_conv_medium") | {"classifier.weight": (1000, 1280)},
        ),
        (
            "efficientnet_blur_b0",
            efficientnet_arrays("efficientnet_b0") | {"classifier.weight": (1000, 1280)},
        ),
    ],
)
def test_classifiers_of_timm_with_anti_aliasing_are_refused(name, shapes, tmp_path):
    arrays = {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    # Without the name, they cannot be distinguished from networks without anti-aliasing.
    assert identify(PublishedWeights(arrays, "pytorch"), tmp_path)[1].overrides["backbone"]
    configuration = {"architecture": name}
    with pytest.raises(DeepLabError, match=rf"{name} downsamples with anti-aliasing.*resnet50d"):
        identify(PublishedWeights(arrays, "pytorch", configuration=configuration), tmp_path)


def test_encoders_of_timm_with_anti_aliasing_are_refused(tmp_path):
    changes = {name: None for name in read_listing(SMP) if name.startswith("encoder.")}
    changes |= {f"encoder.model.{name}": shape for name, shape in resnet_18_arrays().items()}
    assert identify(weights_of(SMP, changes), tmp_path)[1].overrides["backbone"] == "resnet_18"
    for name in ("tu-resnetblur18", "tu-mobilenetv4_conv_blur_medium.e500_r224_in1k"):
        with pytest.raises(DeepLabError, match=f"{name} downsamples with anti-aliasing"):
            identify(weights_of(SMP, changes, encoder_name=name), tmp_path)


@pytest.mark.parametrize(
    ("published", "preprocessing"),
    [
        (None, "mean_std"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, "minus_one_one"),
        ({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, "mean_std"),
    ],
)
def test_plain_resnets_of_timm_have_the_normalization_of_their_configuration(
    published, preprocessing, tmp_path
):
    shapes = resnet_18_arrays() | {"fc.weight": (1000, 512)}
    arrays = {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    configuration = {"architecture": "resnet18", "pretrained_cfg": published}
    weights = PublishedWeights(arrays, "pytorch", configuration=configuration)
    assert identify(weights, tmp_path)[1].overrides["preprocessing"] == preprocessing


def test_plain_resnets_of_timm_with_an_unsupported_normalization_are_refused(tmp_path):
    shapes = resnet_18_arrays() | {"fc.weight": (1000, 512)}
    arrays = {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    configuration = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0], "std": [1]}}
    weights = PublishedWeights(arrays, "pytorch", configuration=configuration)
    with pytest.raises(DeepLabError, match=r"normalized by mean \[0\]"):
        identify(weights, tmp_path)


KAZUTO = {f"layer4.block{n}.reduce.conv.weight": (1, 1, 1, 1) for n in range(1, 24)} | {
    "aspp.c0.weight": (21, 8, 3, 3)
}
ISHT7 = {
    **{f"layer3.{n}.conv{k}.weight": (1, 1, 1, 1) for n in range(23) for k in (1, 2, 3)},
    "layer5.conv2d_list.0.weight": (21, 8, 3, 3),
}


TORCHVISION = {
    **{f"backbone.layer3.{n}.conv{k}.weight": (1, 1, 1, 1) for n in range(6) for k in (1, 2, 3)},
    "classifier.0.convs.0.0.weight": (256, 8, 1, 1),
}


@pytest.mark.parametrize(
    ("outputs", "auxiliary", "num_classes"), [(21, 21, 21), (5, 21, 5), (1, 1, 2), (1, 21, 2)]
)
def test_networks_of_torchvision_with_replaced_classifiers(
    outputs, auxiliary, num_classes, tmp_path
):
    shapes = TORCHVISION | {
        "classifier.4.weight": (outputs, 256, 1, 1),
        "aux_classifier.4.weight": (auxiliary, 256, 1, 1),
    }
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    convention, found = identify(PublishedWeights(arrays, "pytorch"), tmp_path)
    assert convention.name == "torchvision"
    assert found.overrides == {"num_classes": num_classes, "aux_head": auxiliary == outputs}
    assert found.class_names == (("background", "foreground") if outputs == 1 else ())


@pytest.mark.parametrize(
    ("arrays", "prefix", "aligned", "scales"),
    [
        (KAZUTO, "", False, ()),
        (KAZUTO, "module.", False, ()),
        (KAZUTO, "base.", False, (1, 0.75, 0.5)),
        (KAZUTO, "net.module.base.", False, (1, 0.75, 0.5)),
        (ISHT7, "", True, ()),
        (ISHT7, "Scale.", True, (1, 0.75, 0.5)),
    ],
)
def test_ports_of_deeplab_v2_keep_their_scales_and_alignment(
    arrays, prefix, aligned, scales, tmp_path
):
    source = tmp_path / "model.safetensors"
    save_file({prefix + key: np.empty(shape, np.float32) for key, shape in arrays.items()}, source)
    _, (name, overrides, *_) = identify(read_weights(source), source)
    architecture = create_model(name, **overrides).architecture
    assert (architecture.align_corners, architecture.multi_scale) == (aligned, scales)


# Section `backbone` of a published network.
D8 = {"dilations": [1, 1, 2, 4], "contract_dilation": True}
VAINF, JF, MM = "vainf_v3plus_mobilenet", "jfzhang95_resnet", "mmseg_v3_resnet50"
STEM = "backbone.low_level_features.0.0.weight"


@pytest.mark.parametrize(
    ("name", "changes", "configuration", "reason"),
    [
        (SMP, {}, {"activation": "sigmoid"}, "activation .* is 'sigmoid'.*set activation to null"),
        (SMP, {}, {"encoder_depth": 4}, "encoder_depth .* is 4, but must be 5"),
        (SMP, {}, {"upsampling": 8}, "upsamples by a factor of 8 .*must be 4"),
        (SMP, {}, {"upsampling": "4"}, "upsamples by a factor of '4' .*must be 4"),
        (SMP, {}, {"decoder_atrous_rates": None}, r"decoder_atrous_rates .* is None.*\[12, 24, 36"),
        (SMP, {}, {"decoder_atrous_rates": 12}, r"decoder_atrous_rates .* is 12, .*list of rates"),
        (
            SMP,
            {"encoder.features.18.0.weight": None},
            {"encoder_name": "timm-resnest50d"},
            "resnest50d is not supported; supported networks of segmentation_models.pytorch: Deep",
        ),
        (
            SMP,
            {"decoder.aspp.0.project.0.weight": None},
            {"_model_class": "Unet"},
            "Unet is not supported",
        ),
        (VAINF, {STEM: None, "backbone.stage4.0.x": (1,)}, {}, "backbone HRNet is not supported"),
        (JF, {"backbone.layer0.0.weight": (1,)}, {}, "backbone DRN is not supported"),
        (
            JF,
            {"backbone.layer4.0.conv1.weight": None, "backbone.block20.skip.weight": (1,)},
            {},
            "backbone Xception is not supported",
        ),
        (MM, {"backbone.layer2.0.downsample.2.bias": (512,)}, {}, "style of the backbone is not"),
        (MM, {"decode_head.aspp_modules.1.conv.weight": None}, {}, "decode head without ASPP"),
        (MM, {"decode_head.conv_seg.weight": (1, 512, 1, 1)}, {}, "with a single output"),
        (MM, {}, {"img_norm_cfg": {"to_rgb": False}}, "order blue, green, red"),
        (MM, {}, {"data_preprocessor": {"mean": [0.0] * 3}}, "order blue, green, red"),
        (MM, {}, {"model": {"data_preprocessor": {"bgr_to_rgb": False}}}, "order blue, green, red"),
        (
            MM,
            {},
            {"model": {"backbone": D8 | {"style": "caffe"}}},
            "contract_dilation=True is not supported at output stride 8",
        ),
        (MM, {}, {"model": None}, "model in the training configuration of the checkpoint is None"),
        (
            MM,
            {},
            {"model": {"backbone": {"dilations": 4}}},
            "dilations .* is 4, but must be a list",
        ),
        (
            MM,
            {},
            {"model": {"backbone": D8 | {"multi_grid": [1, 2]}}},
            r"multi_grid=\(1, 2\) must have 3 rates, .* multiples of 2, 4 and 4",
        ),
    ],
)
def test_unsupported_variants_are_refused_with_the_reason(
    name, changes, configuration, reason, tmp_path
):
    with pytest.raises(DeepLabError, match=reason):
        identify(weights_of(name, changes, **configuration), tmp_path)


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        (SMP, "segmentation_head.0"),
        ("vainf_v3plus_mobilenet", "classifier.classifier.3"),
        ("jfzhang95_mobilenet", "decoder.last_conv.8"),
    ],
)
def test_a_single_output_is_the_score_of_the_foreground(name, scope, tmp_path):
    shapes = read_listing(name)
    shapes |= {f"{scope}.weight": (1, 256, 1, 1), f"{scope}.bias": (1,)}
    arrays = {key: draw(key, shape) for key, shape in shapes.items()}
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"encoder_name": "mobilenet_v2"}))
    conversion = convert(tmp_path)
    assert conversion.description.class_names == ("background", "foreground")
    classifier = conversion.variables["params"]["classifier"]
    kernel = arrays[f"{scope}.weight"][0, :, 0, 0]
    np.testing.assert_array_equal(classifier["kernel"][0, 0], np.stack([0 * kernel, kernel], 1))
    np.testing.assert_array_equal(classifier["bias"], [0, arrays[f"{scope}.bias"][0]])


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["sky", "tree"], "has 5 outputs, but 2 class names are stored with the weights; give"),
        (["sky", "tree", "sky", "sea", "car"], "the class name 'sky' occurs several times"),
    ],
)
def test_class_names_in_the_configuration_that_do_not_fit_are_refused(names, reason, tmp_path):
    arrays = {key: np.zeros(shape, np.float32) for key, shape in read_listing(SMP).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    labels = {str(number): name for number, name in enumerate(names)}
    configuration = {"encoder_name": "mobilenet_v2", "id2label": labels}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    with pytest.raises(DeepLabError, match=reason + r".*--classes=FILE"):
        convert(tmp_path)
    names = [f"class {number}" for number in range(5)]
    assert convert(tmp_path, class_names=names).description.class_names == tuple(names)


def test_sizes_of_segmentation_models_are_multiples_of_the_output_stride(tmp_path):
    from deeplab_jax.inference.padding import size_grid
    from deeplab_jax.models import create_model

    _, found = identify(weights_of(SMP), tmp_path)
    architecture = create_model(found.architecture, **found.overrides).architecture
    assert size_grid(architecture) == (16, 0)
    assert size_grid(dataclasses.replace(architecture, multiple_of_stride=False)) == (16, 1)
