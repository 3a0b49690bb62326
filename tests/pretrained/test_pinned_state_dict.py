"""Pinned files in PyTorch's legacy layout are read; hostile ones are refused and run no code."""

import numpy as np
import pytest
from pretrained.legacy_files import (
    arrays,
    checksum,
    integer,
    integers,
    legacy_file,
    state_dict,
    tensor,
    text,
)

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.readers.pinned_state_dict import read_pinned

VALUES = np.arange(6, dtype=np.float32)
FOLDER = "created_by_the_file"


def entries(opcodes):
    """Returns the pickle of a dict whose only value is what some opcodes create."""
    return b"\x80\x02}(" + text("a") + opcodes + b"u."


def test_every_array_is_read():
    content = legacy_file(arrays())
    found = read_pinned(content, [checksum(b""), checksum(content)])
    assert list(found) == list(arrays())
    for name, expected in arrays().items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_tensors_may_be_views_of_their_storage():
    view = tensor("a", VALUES, size=(2, 2), stride=(1, 2), offset=1)
    content = legacy_file({"a": VALUES}, tensors=entries(view))
    expected = VALUES[1:5].reshape(2, 2).T
    np.testing.assert_array_equal(read_pinned(content, [checksum(content)])["a"], expected)


HOSTILE = {
    "function": (entries(b"cos\nmkdir\n" + text(FOLDER) + b"\x85R"), r"may run code.*os\.mkdir"),
    "builtin": (entries(b"c__builtin__\neval\n" + text("1") + b"\x85R"), "may run code.*eval"),
    "other storage": (entries(b"ctorch\nload\n" + text("x") + b"\x85R"), r"torch\.load"),
    "attribute": (entries(b"ccollections\nOrderedDict.fromkeys\n"), "OrderedDict.fromkeys"),
    "registry": (entries(b"\x82\x01"), "damaged"),
    "storage that is called": (entries(b"ctorch\nFloatStorage\n)R"), "damaged"),
    "changed rebuild": (
        entries(b"ctorch._utils\n_rebuild_tensor_v2\n(N}" + text("__code__") + b"Nstb"),
        "damaged",
    ),
    "a module as persistent id": (entries(b"(" + text("module") + text("os") + b"tQ"), "'module'"),
    "persistent id of text": (b"\x80\x02Pos.system\n.", "'os.system'"),
    "part of another storage": (
        entries(tensor("a", VALUES, view=b"(" + text("b") + integer(0) + integer(2) + b"t")),
        "does not describe the storage of a tensor",
    ),
    "beyond the end": (entries(tensor("a", VALUES, offset=1)), r"\[6\] reaches beyond"),
    "before the start": (entries(tensor("a", VALUES, offset=-1)), "reaches beyond"),
    "negative stride": (entries(tensor("a", VALUES, stride=(-1,))), "reaches beyond"),
    "expanded": (entries(tensor("a", VALUES, size=(2**31 - 1,), stride=(0,))), "reaches beyond"),
    "missing storage": (entries(tensor("b", VALUES)), "damaged"),
    "a number for a tensor": (entries(integer(3)), "damaged"),
    "a list": (b"\x80\x02]" + integers((1, 2)) + b"a.", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_state_dicts_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled, complaint = HOSTILE[name]
    content = legacy_file({"a": VALUES}, tensors=pickled)
    with pytest.raises(DeepLabError, match=complaint) as caught:
        read_pinned(content, [checksum(content)])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / FOLDER).exists()


def test_storages_of_another_size_are_refused():
    content = legacy_file({"a": VALUES}, counts={"a": 7})
    with pytest.raises(DeepLabError, match="storage a does not have 6 elements"):
        read_pinned(content, [checksum(content)])


def test_truncated_files_are_refused():
    content = legacy_file(arrays())
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(DeepLabError, match=r"damaged|legacy"):
            read_pinned(content[:length], [checksum(content[:length])])


@pytest.mark.parametrize("first", [b"PK\x03\x04", b"\x80\x02K\x01.", b""])
def test_other_files_are_refused(first):
    content = first + state_dict(arrays())
    with pytest.raises(DeepLabError, match="legacy PyTorch file"):
        read_pinned(content, [checksum(content)])


def test_files_without_a_full_checksum_are_not_read():
    content = legacy_file({}, tensors=HOSTILE["function"][0])
    for pinned in ([], ["sha256:12ab"], [checksum(content)[:-1]], ["md5:" + "0" * 32]):
        with pytest.raises(DeepLabError, match="is not a complete SHA-256"):
            read_pinned(content, pinned)
    with pytest.raises(DeepLabError, match="it is not the published file"):
        read_pinned(content, [checksum(b"another file")])


@pytest.mark.slow
def test_files_that_torch_writes(tmp_path):
    torch = pytest.importorskip("torch", reason="pip install 'deeplab_jax[torch]'")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = network.state_dict()
    shared = torch.arange(12.0)
    state |= {"half": torch.ones(3).half(), "view": shared[2:8].view(2, 3).T, "again": shared}
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pth").read_bytes()
    found = read_pinned(content, [checksum(content)])
    assert list(found) == list(state)
    for name, values in state.items():
        np.testing.assert_array_equal(found[name], values.numpy())
