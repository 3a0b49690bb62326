"""Model directories, workdirs and names of published weights all lead to a model."""

import dataclasses
import hashlib
import io
import json
import logging
import tarfile

import numpy as np
import PIL.Image
import pytest
from file_server import Behaviour, serving
from reporters import RecordingReporter
from stand_ins import write_workdir

import deeplab_jax
from deeplab_jax.checkpointing import read_description
from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert_source, find_pretrained, locate, published_models
from deeplab_jax.pretrained.download import Patience

NAME = "deeplabv3_mobilenetv2_dm05_voc_tflite"
HUB_NAME = "timm_xception41_imagenet"
FLOAT_FILE = "deeplabv3_mnv2_dm05_voc_257_float.tflite"


@pytest.fixture
def content(shared):
    return (shared / "weights" / FLOAT_FILE).read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(monkeypatch):
    """Puts an entry into the catalog for one test."""

    def place(**changes):
        entry = dataclasses.replace(find_pretrained(NAME), **changes)
        monkeypatch.setitem(published_models._catalog(), entry.name, entry)
        return entry

    return place


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Patience, "__init__", _impatient)
    behaviour = Behaviour()
    with serving(behaviour) as url:
        behaviour.url = url
        yield behaviour


def _impatient(self):
    values = {"timeout": 2.0, "slowest": 1.0, "attempts": 2, "pause": 0.01, "max_bytes": 10**8}
    for name, value in values.items():
        object.__setattr__(self, name, value)


def files_below(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)) for path in found}


def test_weights_in_a_bucket_are_refused_in_one_line():
    with pytest.raises(DeepLabError, match=r"^gs://bucket/voc.pth: .* local paths only; copy"):
        convert_source("gs://bucket/voc.pth")


def test_a_cache_that_cannot_be_written_is_reported(cache):
    cache.write_bytes(b"")
    message = r"cache/models cannot be written \(Not a directory\); .*DEEPLAB_CACHE"
    with pytest.raises(DeepLabError, match=message):
        locate(NAME)


def test_a_file_system_without_locks_is_reported(cache, monkeypatch):
    def fail(*arguments, **keywords):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    with pytest.raises(DeepLabError, match=r"cache/models is in a file system .*DEEPLAB_CACHE"):
        locate(NAME)


def test_a_name_that_begins_with_a_tilde_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeepLabError, match=r"^~draft.pth: there is no such file"):
        convert_source("~draft.pth")
    (tmp_path / "~draft.pth").write_bytes(b"")
    with pytest.raises(DeepLabError, match=r"~draft.pth.*(damaged|torch)"):
        convert_source("~draft.pth")


def test_directories_are_themselves(cache, tmp_path, monkeypatch):
    workdir = write_workdir(tmp_path / "run", ["sky", "tree"])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate(str(workdir)) == locate(workdir) == workdir
    assert str(locate("run")) == "run"
    assert locate("~/run") == workdir
    assert not cache.exists()


def test_a_directory_wins_over_a_name_if_it_holds_a_model(cache, tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(DeepLabError, match="put this file at"):
        locate(NAME)
    write_workdir(tmp_path / "run", ["sky"])
    (tmp_path / NAME).rmdir()
    (tmp_path / "run").rename(tmp_path / NAME)
    assert str(locate(NAME)) == NAME


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("nowhere", "expected a workdir of `train`, a model directory, hf://user/name, or a name"),
        ("deeplabv3_mobilenetv2_vok", "did you mean 'deeplabv3_mobilenetv2_voc'?"),
        ("file.tflite", "deeplab-jax convert"),
        ("", "no model.json"),
        ("no/such/path", "no/such/path is not a model"),
    ],
)
def test_unknown_references_are_refused(cache, tmp_path, reference, complaint):
    (tmp_path / "file.tflite").write_bytes(b"")
    with pytest.raises(DeepLabError) as caught:
        deeplab_jax.load(reference)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_put_there_by_hand_is_verified_and_converted_once(cache, content):
    target = cache / "pretrained" / "deeplabv3.tflite"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    listener = RecordingReporter()
    directory = locate(NAME, listener)
    assert directory.parent == cache / "models"
    assert len(listener.messages) == 1
    description = read_description(directory)
    entry = find_pretrained(NAME)
    assert description.source["name"] == NAME
    assert description.source["url"] == entry.url
    assert description.source["license"] == "Apache-2.0"
    assert description.source["sha256"] == hashlib.sha256(content).hexdigest()
    assert description.class_names == entry.class_names
    assert description.inference_size == (257, 257)
    target.unlink()
    assert locate(NAME, listener) == directory
    assert len(listener.messages) == 1


def test_a_name_gives_the_published_mask(cache, content, shared):
    target = cache / "pretrained" / "deeplabv3.tflite"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    predictor = deeplab_jax.load(NAME)
    assert predictor.source == NAME
    image = PIL.Image.open(shared / "data" / "golden" / "segmentation_input_257.jpg")
    golden = PIL.Image.open(shared / "data" / "golden" / "segmentation_golden_257_times10.png")
    class_map = predictor(np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(class_map * 10, np.asarray(golden.convert("L")))


@pytest.mark.parametrize("packed", [False, True])
def test_a_name_is_downloaded_once(cache, place, server, content, packed):
    server.content = tarred("net/network.tflite", content) if packed else content
    name = "x.tgz" if packed else "x.tflite"
    digest = hashlib.sha256(server.content).hexdigest()
    place(url=f"{server.url}/{name}", checksums=(f"sha256:{digest[:16]}",))
    directory = locate(NAME, RecordingReporter())
    assert locate(NAME, RecordingReporter()) == directory
    assert len(server.requests) == 1
    kept = {path for path in files_below(cache) if not path.startswith("models/")}
    assert kept == {f"pretrained/{name}"}
    source = read_description(directory).source
    assert source["sha256"] == hashlib.sha256(content).hexdigest()


def tarred(name, content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def test_another_file_at_the_address_leaves_the_cache_as_it_was(cache, place, server, content):
    server.content = content[::-1]
    place(url=f"{server.url}/x.tflite")
    with pytest.raises(DeepLabError, match="not the published file"):
        locate(NAME, RecordingReporter())
    assert files_below(cache) == set()


def test_a_file_that_cannot_be_converted_leaves_no_model(cache, place, server):
    server.content = b"1234TFL3" + bytes(1000)
    place(url=f"{server.url}/x.tflite", checksums=())
    with pytest.raises(DeepLabError, match="damaged"):
        locate(NAME, RecordingReporter())
    assert files_below(cache) == {"pretrained/x.tflite"}


def test_a_class_count_that_the_entry_does_not_have(cache, place, server, content):
    server.content = content
    place(url=f"{server.url}/x.tflite", checksums=(), data_set="cityscapes")
    with pytest.raises(DeepLabError, match="21 outputs, but 19 class names"):
        locate(NAME, RecordingReporter())


@pytest.mark.parametrize("name", ["deeplabv3_mobilenetv2_voc", "deeplabv3_resnet50_coco"])
def test_without_network_the_error_says_what_to_do(cache, place, name):
    entry = dataclasses.replace(find_pretrained(name), name=NAME)
    place(**{
        field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)
    } | {"url": f"http://name.invalid/{entry.file_name}"})  # fmt: skip
    with pytest.raises(DeepLabError) as caught:
        locate(NAME, RecordingReporter())
    assert f"put this file at {cache / 'pretrained' / entry.file_name}" in str(caught.value)
    assert files_below(cache) == set()


def test_a_file_of_hugging_face_comes_with_its_configuration(cache, place, content, monkeypatch):
    asked = []

    def hf_hub_download(repository, name, cache_dir, token):
        asked.append((repository, name, token))
        path = cache_dir / "snapshot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if name.endswith("tflite") else json.dumps({}).encode())
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    place(url="", hub_repository="someone/net", hub_file="net.tflite")
    directory = locate(NAME, RecordingReporter())
    assert asked == [("someone/net", "config.json", False), ("someone/net", "net.tflite", False)]
    source = read_description(directory).source
    assert source["url"] == "https://huggingface.co/someone/net/resolve/main/net.tflite"


def test_a_file_of_hugging_face_with_another_checksum_is_removed(cache, place, monkeypatch):
    stored = cache / "blob"

    def hf_hub_download(repository, name, cache_dir, token):
        stored.write_bytes(b"something else")
        path = cache_dir / "snapshot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(stored)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    place(url="", hub_repository="someone/net", hub_file="net.tflite")
    with pytest.raises(DeepLabError, match=r"someone/net/.*; the downloaded file was removed"):
        locate(NAME, RecordingReporter())
    assert not stored.exists()


def test_hugging_face_out_of_reach(cache, monkeypatch):
    def hf_hub_download(repository, name, cache_dir, token):
        raise ConnectionError("cannot be reached\nor so")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    with pytest.raises(DeepLabError) as caught:
        locate(HUB_NAME, RecordingReporter())
    message = str(caught.value)
    assert "timm/xception41.tf_in1k/resolve/main/model.safetensors (cannot be reached)" in message
    assert f"put this file at {cache / 'pretrained' / HUB_NAME}.safetensors" in message
    assert "\n" not in message


def test_without_a_reporter_messages_are_logged(cache, content, caplog):
    target = cache / "pretrained" / "deeplabv3.tflite"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    with caplog.at_level(logging.INFO, "deeplab_jax"):
        locate(NAME)
    assert "converting deeplabv3.tflite (license: Apache-2.0)" in caplog.text


def test_an_exported_file_with_another_suffix_is_explained(tmp_path):
    file = tmp_path / "network"
    file.touch()
    with pytest.raises(DeepLabError, match=r"name ends in \.onnx, \.stablehlo or \.tflite"):
        deeplab_jax.load(file)
