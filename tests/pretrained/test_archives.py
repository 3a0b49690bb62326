"""Weights in archives and directories are found, with the files beside them."""

import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from deeplab_jax.pretrained.archives import unpacked
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
