"""The catalog of published weights is complete and says what it knows."""

import dataclasses
import hashlib
import pathlib
import re

import numpy as np
import official_variables
import pytest
from selection import slow_unless

import deeplab_jax
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data.descriptors import VOC
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_classifier, create_model
from deeplab_jax.pretrained import find_pretrained, list_pretrained
from deeplab_jax.pretrained.archives import is_archive
from deeplab_jax.pretrained.assignment import assign
from deeplab_jax.pretrained.conversion import identify, wanted_variables
from deeplab_jax.pretrained.name_maps import IMAGE_CLASSIFIER, Identified
from deeplab_jax.pretrained.published_models import IMAGENET, SEGMENTATION_CLASSES
from deeplab_jax.pretrained.readers import READERS
from deeplab_jax.pretrained.weights import PublishedWeights

CATALOG = list_pretrained()
CHECKSUM = re.compile(r"sha256:[0-9a-f]{8,64}|sha384:[0-9a-f]{96}")
# Names whose checkpoint's variables are listed.
VARIABLES = {
    "deeplabv3_mobilenetv2_voc": "deeplab_mobilenet_v2_voc",
    "deeplabv3_mobilenetv2_dm05_voc": "deeplab_mobilenet_v2_dm05_voc",
    "deeplabv3_mobilenetv3_large_cityscapes": "deeplab_mobilenet_v3_large_seg_cityscapes",
    "deeplabv3_mobilenetv3_small_cityscapes": "deeplab_mobilenet_v3_small_seg_cityscapes",
    "deeplabv3plus_xception65_voc": "deeplab_xception_65_voc",
    "deeplabv3plus_xception71_dpc_cityscapes": "deeplab_xception_71_dpc_cityscapes",
    "deeplabv3plus_mobilenetv2_ade20k": "deeplab_mobilenet_v2_ade20k",
    "xception65_imagenet": "imagenet_xception_65",
    "resnet101_beta_imagenet": "imagenet_resnet_v1_101_beta",
    "resnet50_imagenet": "imagenet_resnet_v1_50",
    "vgg16_imagenet": "imagenet_vgg_16",
    "mobilenetv2_imagenet": "imagenet_mobilenet_v2",
    "mobilenetv2_dm140_imagenet": "imagenet_mobilenet_v2_140",
    "mobilenetv2_dm035_imagenet": "imagenet_mobilenet_v2_035",
    "mobilenetv3_large_imagenet": "imagenet_mobilenet_v3_large",
}
# Which published file the shared ones are.
SHARED = {
    "deeplabv3_mnv2_dm05_voc_257_float.tflite": "deeplabv3_mobilenetv2_dm05_voc_tflite",
    "deeplabv3_mnv2_voc_513_uint8.tflite": "deeplabv3_mobilenetv2_voc_uint8",
    "deeplabv3_mnv2_voc_513_lut8.mlmodel": "deeplabv3_mobilenetv2_voc_coreml_lut8",
    "mobilenet_v2_imagenet_224_uint8.tflite": "mobilenetv2_imagenet_uint8",
}


@pytest.fixture(params=CATALOG, scope="module")
def entry(request):
    return CATALOG[request.param]


def test_catalog_entries_name_file_source_and_score(entry):
    places = (entry.url, entry.hub_repository and entry.hub_file, entry.package and entry.member)
    assert sum(map(bool, places)) == 1
    assert entry.address.startswith("https://")
    assert entry.page.startswith("https://")
    assert entry.license
    assert all(CHECKSUM.fullmatch(checksum) for checksum in entry.checksums)
    assert all(0 < metric.value < 100 for metric in entry.metrics)
    assert all(metric.measure in ("mIoU", "top-1 accuracy") for metric in entry.metrics)
    assert entry.data_set in (*SEGMENTATION_CLASSES, *IMAGENET, "")
    # Hugging Face is asked by its own library, which knows what it stores.
    known = entry.checksums or entry.hub_repository
    assert known or "checksum" in entry.unverified


def test_the_network_of_an_entry_can_be_built(entry):
    if entry.architecture == IMAGE_CLASSIFIER:
        assert entry.task == "classification"
        create_classifier(**entry.overrides)
    else:
        assert entry.task == "segmentation"
        create_model(entry.architecture or "deeplab_v3plus", **entry.overrides)


# test_tensorflow_names.py assigns the variables of the large networks, too.
@pytest.mark.parametrize("name", slow_unless(lambda name: "mobilenet" in name, VARIABLES))
def test_the_released_variables_fill_the_network_of_an_entry(name):
    entry = CATALOG[name]
    shapes = official_variables.read(VARIABLES[name])
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    convention, told = identify(PublishedWeights(arrays, "tensorflow"), name)
    # As convert puts them together.
    identified = Identified(entry.architecture, {**told.overrides, **entry.overrides})
    if entry.task == "classification":
        model = create_classifier(**identified.overrides)
    else:
        model = create_model(identified.architecture, **identified.overrides)
    assignment = assign(
        wanted_variables(model),
        PublishedWeights(arrays, "tensorflow"),
        convention,
        convention.rules(identified),
    )
    assert not assignment.missing
    assert not assignment.mismatched
    if entry.class_names:
        assert identified.overrides["num_classes"] == len(entry.class_names)
    # What the file tells as well agrees with the entry, but for the crop, which it does not know.
    for key in set(entry.overrides) & set(told.overrides) - {"image_pooling"}:
        assert entry.overrides[key] == told.overrides[key]


def test_the_file_of_an_entry_has_a_form_that_is_read(entry):
    name = entry.file_name
    assert is_archive(pathlib.Path(name)) or any(name.endswith(suffix) for suffix in READERS)


def test_no_two_entries_share_a_file():
    names = [entry.file_name for entry in CATALOG.values()]
    assert len(set(names)) == len(names)


def test_torchvision_checksums_are_those_of_the_file_names():
    found = 0
    for entry in CATALOG.values():
        if "download.pytorch.org" in entry.url:
            digits = re.search(r"-([0-9a-f]{8})\.pth$", entry.url)[1]
            assert entry.checksums == (f"sha256:{digits}",)
            found += 1
    assert found >= 13


@pytest.mark.parametrize("file", SHARED)
def test_the_shared_files_are_the_published_ones(shared, file):
    digest = hashlib.sha256((shared / "weights" / file).read_bytes()).hexdigest()
    assert f"sha256:{digest}" in find_pretrained(SHARED[file]).checksums


def test_an_entry_has_a_complete_description():
    entry = deeplab_jax.list_pretrained()["deeplabv3_mobilenetv2_voc"]
    assert entry.class_names == VOC.class_names
    assert entry.inference_size == (513, 513)
    assert str(entry.metrics[0]) == "75.32 % mIoU, VOC 2012 val, output stride 16"
    assert entry.license == "Apache-2.0"
    assert entry.file_name == "deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz"


def test_a_changed_catalog_entry_is_converted_again():
    entry = find_pretrained("deeplabv3_mobilenetv2_voc")
    other = dataclasses.replace(entry, overrides={**entry.overrides, "output_stride": 8})
    assert entry.version != other.version
    assert entry.version == dataclasses.replace(entry).version


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(DeepLabError, match="did you mean 'deeplabv3_mobilenetv2_voc'"):
        find_pretrained("deeplab3_mobilenetv2_voc")


def test_the_command_lists_every_name_on_a_line(capsys):
    assert run(["models"], Console()) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in CATALOG.items():
        [line] = [line for line in lines if line.split()[:1] == [name]]
        assert entry.license in line
        assert entry.data_set in line
