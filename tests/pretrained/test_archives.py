"""Weights in archives and directories are found, with the files beside them."""

import errno
import json
import re
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from pretrained.codebases import read_listing
from safetensors.numpy import save_file

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.archives import extract, unpacked
from deeplab_jax.pretrained.conversion import identify
from deeplab_jax.pretrained.readers import read_weights


def write_weights(path, name="conv.weight"):
    save_file({name: np.zeros(2, np.float32)}, path)


def pack(archive, folder):
    """Packs all files below a folder, and returns the path of the archive."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [(path, str(path.relative_to(folder.parent))) for path in files]
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path, name in names:
                packed.write(path, name)
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".TAR" else "w:gz") as packed:
            for path, name in names:
                packed.add(path, name)
    return archive


@pytest.mark.parametrize("suffix", [".ZIP", ".TAR", ".TGZ", ".Tar.Gz"])
def test_suffixes_may_be_in_upper_case(suffix, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    write_weights(folder / "MODEL.SAFETENSORS")
    for source in (folder, pack(tmp_path / f"a{suffix}", folder)):
        with unpacked(source) as file:
            assert list(read_weights(file).arrays) == ["conv.weight"]


def test_an_archive_gives_the_same_network_as_its_directory(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    shapes = read_listing("smp_v3plus_mobilenet_v2")
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(arrays, folder / "model.safetensors")
    configuration = {
        "encoder_name": "mobilenet_v2",
        "encoder_output_stride": 8,
        "decoder_atrous_rates": [3, 6, 9],
        "classes": ["sky", "tree"],
    }
    (folder / "config.json").write_text(json.dumps(configuration))
    found = []
    for source in (folder, pack(tmp_path / "net.zip", folder)):
        with unpacked(source) as file:
            weights = read_weights(file)
            found.append((identify(weights, file)[1].overrides, weights.class_names))
    assert found[0] == found[1]
    assert (found[0][0]["output_stride"], found[0][0]["atrous_rates"]) == (8, (3, 6, 9))
    assert found[0][1] == ("sky", "tree")


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_only_the_configuration_beside_the_weights_is_read(suffix, tmp_path):
    for name in ("", "inner", "other"):
        folder = tmp_path / "net" / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"encoder_name": name}))
    write_weights(tmp_path / "net" / "inner" / "model.safetensors")
    with unpacked(pack(tmp_path / f"net{suffix}", tmp_path / "net")) as file:
        assert read_weights(file).configuration == {"encoder_name": "inner"}


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_the_last_checkpoint_of_an_archive_is_found(suffix, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (10, 20):
        for part in ("index", "data-00000-of-00001"):
            (folder / f"model.ckpt-{step}.{part}").write_bytes(b"x")
    (folder / "checkpoint").write_text('model_checkpoint_path: "/old/run/model.ckpt-10"\n')
    for source in (folder, pack(tmp_path / f"run{suffix}", folder)):
        with unpacked(source) as prefix:
            assert prefix.name == "model.ckpt-10"


def test_a_full_disk_is_reported_with_the_remedy(tmp_path, monkeypatch):
    folder = tmp_path / "net"
    folder.mkdir()
    write_weights(folder / "model.safetensors")
    archive = pack(tmp_path / "net.tar.gz", folder)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(DeepLabError, match=r"net\.tar\.gz: no space is left in .*TMPDIR") as caught:
        extract(archive, tmp_path / "out" / "temporary", re.compile(""))
    assert str(tmp_path / "out") in str(caught.value)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_the_limit_of_an_archive_is_that_of_all_files(suffix, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(bytes(20_000))
    archive = pack(tmp_path / f"net{suffix}", folder)
    with pytest.raises(DeepLabError, match="unpacks to more than 30,000 bytes"):
        extract(archive, tmp_path / "out", re.compile(""), max_bytes=30_000)
