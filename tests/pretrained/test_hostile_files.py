"""Broken and hostile files get one line, and leave the cache and the output as they were."""

import contextlib
import gzip
import io
import pickle
import random
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import tflite
from safetensors.numpy import save_file

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import archives
from deeplab_jax.pretrained.archives import unpacked
from deeplab_jax.pretrained.conversion import identify
from deeplab_jax.pretrained.readers import READERS, read_weights

FLOAT_NAME = "deeplabv3_mobilenetv2_dm05_voc_tflite"
FLOAT_FILE = "deeplabv3_mnv2_dm05_voc_257_float.tflite"
EXTRAS = dict.fromkeys((".pth", ".pt", ".bin"), "torch") | {
    ".mlmodel": "coremltools",
    ".pb": "tensorflow",
    ".ckpt": "tensorflow",
}


@pytest.fixture(scope="module")
def published(shared):
    """The bytes of a published TFLite file."""
    return (shared / "weights" / FLOAT_FILE).read_bytes()


@pytest.fixture
def world(tmp_path, monkeypatch, capsys):
    """Runs commands with a cache of their own; checks that a refused one leaves nothing."""

    class World:
        folder, cache = tmp_path, tmp_path / "cache"

        def refuses(self, source, *flags):
            before = self.files()
            capsys.readouterr()
            status = run(["convert", str(source), "--output=out", *flags], Console())
            printed, error = capsys.readouterr()
            assert (status, printed, error.count("\n")) == (2, "", 1), (printed, error)
            assert self.files() == before
            return error

        def files(self):
            found = (path for path in tmp_path.rglob("*") if not path.name.endswith(".lock"))
            contents = {path: path.is_file() and path.read_bytes() for path in found}
            # These folders come and stay.
            return contents | dict.fromkeys((self.cache, self.cache / "pretrained"))

        def write(self, name, content):
            (tmp_path / name).write_bytes(content)
            return tmp_path / name

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    return World()


def suffixes():
    return [suffix for suffix in READERS if suffix != ".index"]


@pytest.mark.parametrize("suffix", suffixes())
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\0" * 4096, b"no weights at all", b"PK\x03\x04", b"\xff" * 1000],
    ids=["empty", "one zero", "zeros", "text", "zip", "ones"],
)
def test_non_weights_are_refused(world, suffix, content):
    if suffix in EXTRAS:
        pytest.importorskip(EXTRAS[suffix])
    error = world.refuses(world.write(f"weights{suffix}", content))
    assert f"weights{suffix}" in error


@pytest.mark.parametrize("name", ["model.safetensors", "network.pth", "epoch.ckpt"])
def test_a_pointer_of_git_lfs_is_named(world, name):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    error = world.refuses(world.write(name, pointer))
    assert f"{name} is a pointer of Git LFS to the weights; run `git lfs pull`" in error


def test_a_saved_model_is_not_called_damaged(world, tmp_path):
    (tmp_path / "exported" / "variables").mkdir(parents=True)
    path = world.write("exported/saved_model.pb", b"\x08\x01\x12\x00")
    for source in (path, path.parent):
        assert "belongs to a SavedModel, which is not supported" in world.refuses(source)


@pytest.mark.parametrize("length", [1, 7, 8, 100, 10_000, 1_000_000, -1000])
def test_a_truncated_file_is_refused(world, published, length):
    assert "cut.tflite" in world.refuses(world.write("cut.tflite", published[:length]))


def read_or_refuse(path):
    """Identifies the network of a file; whatever else is raised than our error is a failure."""
    with contextlib.suppress(DeepLabError):
        identify(read_weights(path), path)


@pytest.mark.parametrize("offset", range(0, 32, 3))
def test_a_damaged_beginning_is_refused_or_changes_nothing(world, published, offset):
    damaged = bytearray(published)
    damaged[offset] ^= 0xFF
    path = world.write("damaged.tflite", damaged)
    read_or_refuse(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "times"),
    [
        (FLOAT_FILE, 200),
        ("deeplabv3_mnv2_voc_513_uint8.tflite", 100),
        ("deeplabv3_mnv2_voc_513_lut8.mlmodel", 40),
    ],
)
def test_random_damage_ends_in_weights_or_an_error(tmp_path, shared, name, times):
    if name.endswith(".mlmodel"):
        pytest.importorskip("coremltools.proto.Model_pb2")
    published = (shared / "weights" / name).read_bytes()
    chance = random.Random(0)
    path = tmp_path / f"damaged{name[name.rindex('.') :]}"
    for _ in range(times):
        damaged = bytearray(published)
        for _ in range(chance.choice((1, 2, 8))):
            # Most of the structure lies at the end; single bits and whole numbers.
            start = chance.choice((0, len(published) - 60_000))
            at = chance.randrange(start, start + 50_000) & ~3
            number = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, chance.randrange(64)))
            damaged[at : at + 4] = struct.pack("<I", number)
            damaged[chance.randrange(start, len(published))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        read_or_refuse(path)


@pytest.mark.timeout(60)
def test_tensors_computed_from_themselves_are_refused(tmp_path, shared):
    file = shared / "weights" / "deeplabv3_mnv2_voc_513_uint8.tflite"
    damaged = bytearray(file.read_bytes())
    model = tflite.Model.GetRootAsModel(damaged, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    names = {number: name for name, number in vars(tflite.BuiltinOperator).items()}

    def name_of(operator):
        code = model.OperatorCodes(operator.OpcodeIndex())
        return names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    def called(name):
        return [operator for operator in operators if name_of(operator) == name]

    [quantize, *_], [convolution, *_] = called("QUANTIZE"), called("CONV_2D")
    # The arrays are views of the file.
    quantize.InputsAsNumpy()[0] = quantize.Outputs(0)
    convolution.InputsAsNumpy()[1] = quantize.Outputs(0)
    path = tmp_path / "circle.tflite"
    path.write_bytes(damaged)
    with pytest.raises(DeepLabError, match="circle"):
        read_weights(path)


class Code:
    """Runs when it is unpickled by anything that trusts it."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return open, (str(self.sentinel), "w")


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
@pytest.mark.parametrize("suffix", [".pth", ".bin"])
def test_a_pickle_with_code_does_not_run_it(world, tmp_path, kind, suffix):
    torch = pytest.importorskip("torch")
    sentinel = tmp_path / "it ran"
    path = tmp_path / f"weights{suffix}"
    content = {"backbone.conv1.weight": torch.zeros(2), "code": Code(sentinel)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    assert f"weights{suffix}" in world.refuses(path)
    assert not sentinel.exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_new_pickle_protocol_is_named(world, tmp_path, protocol, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    # Protocol 3 differs from protocol 2 in the bytes of NumPy scalars.
    content = {"backbone.conv1.weight": torch.zeros(2), "best": np.float64(0.5)}
    torch.save(content, path, **options)
    assert "was written with pickle protocol 3, 4 or 5" in world.refuses(path)


@pytest.mark.parametrize(
    "header",
    [
        (2**40, b"{}"),
        (2**63, b"{}"),
        (60, b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'[:60]),
        (2, b"[]"),
    ],
)
def test_a_safetensors_header_that_promises_too_much(world, header):
    length, text = header
    path = world.write("weights.safetensors", struct.pack("<Q", length) + text)
    assert "weights.safetensors" in world.refuses(path)


def test_arrays_of_no_network_are_named(world, tmp_path):
    save_file({"some.thing": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    assert "some.thing" in world.refuses(tmp_path / "weights.safetensors")


def test_a_file_of_another_checksum_is_kept_and_refused(world):
    folder = world.cache / "pretrained"
    folder.mkdir(parents=True)
    (folder / "deeplabv3.tflite").write_bytes(b"not that file")
    error = world.refuses(FLOAT_NAME)
    assert "9711334db2b01d5894feb8ed0f5cb3e97d125b8d229f8d8692f625801818f5ef" in error
    assert "remove or replace this file" in error


def tar_of(*members, kind="w:gz"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=kind) as tar:
        for name, data, member_type in members:
            info = tarfile.TarInfo(name)
            info.type = member_type
            info.size = len(data) if member_type == tarfile.REGTYPE else 0
            info.linkname = "/etc/hostname" if member_type != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


PLAIN = tarfile.REGTYPE


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([("../out.tflite", b"x", PLAIN)], "leads out"),
        ([("a/../../out.tflite", b"x", PLAIN)], "leads out"),
        ([("/tmp/out.tflite", b"x", PLAIN)], "leads out"),
        ([("C:\\out.tflite", b"x", PLAIN)], "leads out"),
        ([("a\\..\\out.tflite", b"x", PLAIN)], "leads out"),
        ([("good.tflite", b"x", PLAIN), ("../out.txt", b"x", PLAIN)], "leads out"),
        ([("a.tflite", b"", tarfile.SYMTYPE)], "not a regular file"),
        ([("a.tflite", b"", tarfile.LNKTYPE)], "not a regular file"),
        ([("a.tflite", b"", tarfile.CHRTYPE)], "not a regular file"),
        ([("a.tflite", b"", tarfile.FIFOTYPE)], "not a regular file"),
        ([("x.tflite", b"1", PLAIN), ("x.tflite", b"2", PLAIN)], "the path x.tflite conflicts"),
        ([("x.tflite", b"1", PLAIN), ("x.tflite/y.pb", b"2", PLAIN)], "conflicts with another"),
        ([("y.pb/x.tflite", b"1", PLAIN), ("y.pb", b"2", PLAIN)], "conflicts with another"),
        ([("a/x.tflite", b"1", PLAIN), ("b/x.tflite", b"2", PLAIN)], "a/x.tflite, b/x.tflite"),
        ([("x.tflite", b"1", PLAIN), ("y.tflite", b"2", PLAIN)], "several"),
        ([("readme.txt", b"1", PLAIN), ("._x.tflite", b"2", PLAIN)], "no weights"),
        ([("x.tflite", b"broken", PLAIN)], "TFL3"),
        ([], "no weights"),
    ],
)
def test_an_archive_that_is_not_what_it_should_be(world, members, complaint):
    assert complaint in world.refuses(world.write("weights.tar.gz", tar_of(*members)))


@pytest.mark.parametrize("name", ["../out.tflite", "/out.tflite", "..\\out.tflite"])
def test_a_zip_whose_paths_lead_out(world, name):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(name, b"x")
    assert "leads out" in world.refuses(world.write("weights.zip", content.getvalue()))


def test_a_zip_with_a_link(world):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        info = zipfile.ZipInfo("x.tflite")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/hostname")
    assert "not a regular file" in world.refuses(world.write("weights.zip", content.getvalue()))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar", ".zip"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x1f\x8b", b"PK\x05\x06", b"text"])
def test_non_archives_are_refused(world, suffix, content):
    assert f"x{suffix}" in world.refuses(world.write(f"x{suffix}", content))


@pytest.mark.parametrize("length", [30, 200, -20, -4])
def test_a_truncated_archive_is_refused(world, length):
    content = tar_of(("x.tflite", np.random.default_rng(0).bytes(2000), PLAIN))
    assert "damaged" in world.refuses(world.write("x.tar.gz", content[:length]))


def bomb(kind, name):
    """Returns 50 MB of zeros in some kilobytes, as a wanted file or not."""
    zeros = bytes(50_000_000)
    if kind == "zip":
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, zeros)
        return content.getvalue()
    return tar_of((name, zeros, PLAIN))


@pytest.mark.parametrize(
    ("kind", "name"), [("zip", "x.tflite"), ("tar.gz", "x.tflite"), ("tar.gz", "other.txt")]
)
def test_a_bomb_stops_at_the_limit(world, monkeypatch, kind, name):
    monkeypatch.setattr(archives.extract, "__defaults__", (10_000_000,))
    path = world.write(f"weights.{kind}", bomb(kind, name))
    assert path.stat().st_size < 200_000
    assert "unpacks to more than" in world.refuses(path)


@pytest.mark.parametrize("header", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_with_a_huge_size_is_refused(world, header):
    info = tarfile.TarInfo("x")
    info.type, info.size = header, 2**40
    content = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    assert "a header of" in world.refuses(world.write("x.tar.gz", content))


def test_a_member_that_claims_to_be_huge(world):
    info = tarfile.TarInfo("x.tflite")
    info.size = 2**40
    content = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    assert "x.tar.gz" in world.refuses(world.write("x.tar.gz", content))


def test_only_what_is_wanted_leaves_the_archive(tmp_path):
    members = [(f"net/model.ckpt.{end}", b"x", PLAIN) for end in ("index", "data-00000-of-00001")]
    members += [("net/graph.pbtxt", b"x", PLAIN), ("net/run.sh", b"x", PLAIN)]
    path = tmp_path / "x.tgz"
    path.write_bytes(tar_of(*members))
    with unpacked(path, tmp_path) as file:
        assert file.name == "model.ckpt"
        assert sorted(other.name for other in file.parent.iterdir()) == [
            "model.ckpt.data-00000-of-00001",
            "model.ckpt.index",
        ]
    assert [other.name for other in tmp_path.iterdir()] == ["x.tgz"]
