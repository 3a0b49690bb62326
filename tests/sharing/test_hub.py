"""Models go to a server that behaves as the Hub does, and come back; each failure is one line."""

import json
import pathlib

import numpy as np
import pytest
from hub_server import MAIN, Hub, serving_hub
from huggingface_hub import constants, file_download
from reporters import RecordingReporter

import deeplab_jax
from deeplab_jax import sharing
from deeplab_jax.checkpointing import SAFETENSORS, ModelDescription, write_shared_model
from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import HubAddress, locate

# huggingface_hub passes bytes to its HTTP library in a way that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TINY = HubAddress("user/tiny")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Yields the server that huggingface_hub uses in this test, with an empty cache."""
    with serving_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        # Earlier versions of huggingface_hub do not use Xet.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    description = ModelDescription(
        "deeplab_v3plus",
        {"backbone": "mobilenet_v2", "num_classes": 2},
        ("a", "b"),
        ((0,) * 3,) * 2,
    )
    variables = {"params": {"kernel": np.arange(50000, dtype=np.float32)}}
    write_shared_model(folder, description, variables)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    (folder / "secret.txt").write_text("not uploaded")
    return folder


def upload(directory, address=TINY, private=False, message="Upload model"):
    return sharing.upload_model(directory, address, private=private, message=message)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_push_and_load(hub, directory):
    url = upload(directory, message="First one")
    repository = hub.repositories["user/tiny"]
    assert url == f"{hub.url}/user/tiny/commit/{repository.branches[MAIN]}"
    assert repository.messages[-1] == "First one"
    assert not repository.private
    reporter = RecordingReporter()
    found = locate("hf://user/tiny", reporter)
    uploaded = content(directory)
    del uploaded["secret.txt"]
    assert repository.commits[repository.branches[MAIN]] == uploaded
    del uploaded["README.md"]
    assert content(found) == uploaded
    assert reporter.messages == ["downloading hf://user/tiny"]
    # A model in the cache is not downloaded again.
    hub.requests.clear()
    assert locate("hf://user/tiny", reporter) == found
    assert hub.requests == ["info"]
    assert len(reporter.messages) == 1


def test_branches_and_private_repositories(hub, directory, monkeypatch):
    upload(directory, HubAddress("user/secret", "v2"), private=True)
    repository = hub.repositories["user/secret"]
    assert repository.private
    assert set(repository.branches) == {MAIN, "v2"}
    assert (locate("hf://user/secret@v2") / SAFETENSORS).is_file()
    with pytest.raises(DeepLabError, match=r"contains no model of deeplab_jax, because model.js"):
        locate("hf://user/secret")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "2")
    with pytest.raises(DeepLabError, match="there is no such repository, or it is private"):
        locate("hf://user/secret@v2")


def test_a_public_repository_receives_no_private_model(hub, directory):
    upload(directory)
    before = dict(hub.repositories["user/tiny"].commits)
    with pytest.raises(DeepLabError, match="exists and is public, so --private is not possible"):
        upload(directory, private=True)
    assert hub.repositories["user/tiny"].commits == before


def test_without_a_network_the_cache_is_used(hub, directory, monkeypatch):
    upload(directory)
    found = locate("hf://user/tiny")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert locate("hf://user/tiny") == found
    with pytest.raises(DeepLabError, match=r"http://127.0.0.1:9 cannot be reached \(.*refused"):
        locate("hf://user/other")
    with pytest.raises(DeepLabError, match=r"cannot upload to hf://user/tiny: http://127.0.0.1:9"):
        upload(directory)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("hf://user/tiny") == found
    with pytest.raises(DeepLabError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        locate("hf://user/other")
    with pytest.raises(DeepLabError, match="cannot upload while HF_HUB_OFFLINE is set"):
        upload(directory)


@pytest.mark.parametrize(
    ("route", "status", "message"),
    [
        ("create", 401, r"the token is missing or invalid.*\(HTTP 401\)"),
        ("create", 403, r"the token does not permit this; a download requires read.*\(HTTP 403\)"),
        ("preupload", 404, r"there is no such repository.*\(HTTP 404\)"),
        ("store", 400, r"the server refused the request \(HTTP 400\)"),
        ("commit", 403, r"the token does not permit this; a download requires read.*\(HTTP 403\)"),
    ],
)
def test_a_failed_upload_changes_nothing(hub, directory, route, status, message):
    hub.answers[route] = status
    with pytest.raises(DeepLabError, match=f"cannot upload to hf://user/tiny: {message}") as caught:
        upload(directory)
    assert "\n" not in str(caught.value)
    if "user/tiny" in hub.repositories:
        assert list(hub.repositories["user/tiny"].commits.values()) == [{}]
    hub.answers.clear()
    upload(directory)
    assert locate("hf://user/tiny")


def test_faults_of_a_model_card_are_stated(hub, directory):
    hub.faults = ['"license" must be one of the listed identifiers']
    message = r'\(HTTP 400\): Invalid metadata in README.md. - "license" must be one of'
    with pytest.raises(DeepLabError, match=message) as caught:
        upload(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf://user/none", r"there is no such repository.*check the name, or run `hf auth login`"),
        ("hf://user/tiny@v9", "the repository has no such revision"),
    ],
)
def test_what_does_not_exist(hub, directory, reference, message):
    upload(directory)
    with pytest.raises(DeepLabError, match=f"cannot download {reference}: {message}") as caught:
        locate(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reference", ["hf://user/name.git", "hf://user/my--model"])
def test_names_that_the_hub_does_not_allow(hub, reference):
    with pytest.raises(DeepLabError, match=f"cannot download {reference}: .*") as caught:
        locate(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_interrupted_download_is_completed_later(hub, directory, monkeypatch):
    upload(directory)
    hub.cut = 1000
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DeepLabError, match="cannot download hf://user/tiny: "):
        locate("hf://user/tiny")
    hub.cut = None
    assert content(locate("hf://user/tiny"))[SAFETENSORS] == content(directory)[SAFETENSORS]


def test_a_missing_file_is_named(hub, directory, tmp_path, monkeypatch):
    """Earlier versions of huggingface_hub return incomplete downloads without a network."""
    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "model.json").write_bytes((directory / "model.json").read_bytes())
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(partial))
    with pytest.raises(DeepLabError, match=r"because model\.safetensors is missing; if an earlier"):
        locate("hf://user/tiny")


def test_a_full_disk(hub, directory, monkeypatch):
    upload(directory)

    def fail(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download._download_to_tmp_and_move", fail)
    with pytest.raises(DeepLabError, match="no space is left on the disk; free some, or set HF_HO"):
        locate("hf://user/tiny")


def test_a_model_that_a_later_release_wrote(hub: Hub, directory):
    upload(directory)
    repository = hub.repositories["user/tiny"]
    files = dict(repository.commits[repository.branches[MAIN]])
    values = json.loads(files["model.json"]) | {"format_version": 99}
    repository.add(MAIN, files | {"model.json": json.dumps(values).encode()}, "later")
    with pytest.raises(DeepLabError, match="update deeplab_jax"):
        deeplab_jax.load("hf://user/tiny")
