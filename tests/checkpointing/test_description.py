import dataclasses
import json

import pytest

from deeplab_jax.checkpointing import ModelDescription, read_description, write_description
from deeplab_jax.errors import DeepLabError

DESCRIPTION = ModelDescription(
    architecture="deeplab_v3plus",
    overrides={"backbone": "mobilenet_v2", "num_classes": 2, "decoder_convs": [[3, 16]]},
    class_names=("Straße", "sky"),
    palette=((0, 0, 0), (128, 0, 0)),
    inference_size=(65, 97),
    source={"trained_on": "shapes/train"},
)


@pytest.mark.parametrize("inference_size", [(65, 97), None])
@pytest.mark.parametrize("intensity_range", [(-1000.0, 400.0), None])
def test_a_written_model_is_read_back(tmp_path, inference_size, intensity_range):
    written = dataclasses.replace(
        DESCRIPTION, inference_size=inference_size, intensity_range=intensity_range
    )
    write_description(tmp_path, written)
    read = read_description(tmp_path)
    network = written.create_model().architecture
    assert read == dataclasses.replace(written, overrides=network.describe())
    assert read.create_model().architecture == network
    assert read.create_model().architecture.decoder_convs == ((3, 16),)


def test_the_license_in_a_file_of_release_0_1_0_is_read(tmp_path):
    write_description(tmp_path, DESCRIPTION)
    values = json.loads((tmp_path / "model.json").read_text())
    old = json.dumps(values | {"source": {"licence": "Apache-2.0"}})
    (tmp_path / "model.json").write_text(old)
    assert read_description(tmp_path).source == {"license": "Apache-2.0"}


def test_directories_without_a_model_are_recognized(tmp_path):
    with pytest.raises(
        DeepLabError, match=r"is not a model: it has no model.json; give the workdir"
    ):
        read_description(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"3",
        b"{}",
        b"\xff\xfe",
        json.dumps(dataclasses.asdict(DESCRIPTION) | {"inference_size": 65}).encode(),
        json.dumps(dataclasses.asdict(DESCRIPTION) | {"colour": 1}).encode(),
    ],
)
def test_a_damage_error_is_one_line_with_the_file(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(DeepLabError, match=r"model\.json is damaged") as caught:
        read_description(tmp_path)
    assert "\n" not in str(caught.value)
