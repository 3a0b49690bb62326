"""State dicts in PyTorch's files and in safetensors: what is read, and what is refused."""

import argparse
import json
import os
import pathlib
import struct
import sys
import tarfile
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
from pretrained.peers import peer
from safetensors.numpy import save_file

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.archives import unpacked
from deeplab_jax.pretrained.readers import read_weights

torch = peer("torch")
KERNEL = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2) / 8


def state_dict():
    return {
        "conv.weight": KERNEL,
        "bn.num_batches_tracked": torch.tensor(3),
        "labels": torch.tensor([1, 2]),
    }


def write(content, folder):
    torch.save(content, folder / "network.pth")
    return folder / "network.pth"


@pytest.mark.parametrize("place", ["", "state_dict", "model", "model_state", "model/state_dict"])
def test_state_dicts_are_found_where_training_code_puts_them(place, tmp_path):
    content = state_dict()
    for name in reversed(place.split("/") if place else []):
        content = {name: content, "epoch": 7, "optimizer": {"lr": 0.1}}
    weights = read_weights(write(content, tmp_path))
    assert weights.layout == "pytorch"
    assert list(weights.arrays) == ["conv.weight"]
    np.testing.assert_array_equal(weights.arrays["conv.weight"], KERNEL.numpy())
    assert weights.ignored == {
        "bn.num_batches_tracked": "it counts training batches",
        "labels": "it contains integers, not weights",
    }


@pytest.mark.parametrize(
    "prefix", ["module.", "module.base.", "Scale.", "model.", "_orig_mod.", "module._orig_mod."]
)
def test_wrapper_objects_are_unpacked(prefix, tmp_path):
    source = write({prefix + name: array for name, array in state_dict().items()}, tmp_path)
    assert list(read_weights(source).arrays) == ["conv.weight"]


def test_tensors_beside_a_state_dict(tmp_path):
    content = {"best_mean_iou": torch.tensor(0.7), "state_dict": {"_orig_mod.a": KERNEL}}
    assert list(read_weights(write(content, tmp_path)).arrays) == ["a"]


def test_a_prefix_of_some_names_is_kept(tmp_path):
    weights = read_weights(write({"base.a": KERNEL, "head.a": KERNEL}, tmp_path))
    assert list(weights.arrays) == ["base.a", "head.a"]


def test_non_arrays_are_left_out_and_reported(tmp_path):
    weights = read_weights(write({"a": KERNEL, "epoch": 3}, tmp_path))
    assert weights.ignored == {"epoch": "it is not an array"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, tmp_path):
    array = read_weights(write({"a": KERNEL.to(dtype)}, tmp_path)).arrays["a"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, KERNEL.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_safetensors(dtype, tmp_path):
    arrays = {"module.a": KERNEL.numpy().astype(dtype), "module.count": np.array([3])}
    save_file(arrays, tmp_path / "network.safetensors", metadata={"format": "pt"})
    weights = read_weights(tmp_path / "network.safetensors")
    assert list(weights.arrays) == ["a"]
    assert weights.arrays["a"].dtype == np.float32
    np.testing.assert_array_equal(weights.arrays["a"], KERNEL.numpy())


def test_the_older_format_of_pytorch(tmp_path):
    path = tmp_path / "network.pth"
    torch.save(state_dict(), path, _use_new_zipfile_serialization=False)
    assert list(read_weights(path).arrays) == ["conv.weight"]


@pytest.mark.parametrize("name", ["epoch=3-step=9.ckpt", "model.pth.tar", "old.pth.tar"])
def test_files_of_pytorch_with_other_suffixes(name, tmp_path):
    """Lightning's, beside normalization constants, and DataParallel's, beside a NumPy score.

    torchvision's training code adds its arguments.
    """
    arrays = {f"model.module.{key}": value for key, value in state_dict().items()}
    content = {
        "state_dict": {**arrays, "mean": torch.zeros(3), "std": torch.ones(3)},
        "optimizer": {"state": {0: {"momentum_buffer": KERNEL}}, "param_groups": [{"lr": 0.1}]},
        "best_pred": np.float64(0.7),
        "hyper_parameters": {"encoder_name": "resnet34"},
        "args": argparse.Namespace(lr=0.1, output_dir=pathlib.Path("runs")),
    }
    is_old = name.startswith("old")
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not is_old)
    assert list(read_weights(tmp_path).arrays) == ["conv.weight", "mean", "std"]


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["model.tar", "epoch.ckpt"])
def test_files_of_pytorch_are_recognized_by_their_content(name, is_zip, tmp_path):
    torch.save(state_dict(), tmp_path / name, _use_new_zipfile_serialization=is_zip)
    with unpacked(tmp_path / name) as file:
        assert list(read_weights(file).arrays) == ["conv.weight"]


def test_the_usual_name_is_preferred_to_the_state_of_the_training(tmp_path):
    torch.save(state_dict(), tmp_path / "pytorch_model.bin")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"other": KERNEL}, tmp_path / name)
    assert list(read_weights(tmp_path).arrays) == ["conv.weight"]


@pytest.mark.parametrize("name", ["MODEL.PTH", "MODEL.PTH.TAR", "EPOCH.CKPT"])
def test_suffixes_of_pytorch_in_upper_case(name, tmp_path):
    torch.save(state_dict(), tmp_path / name)
    assert list(read_weights(tmp_path / name).arrays) == ["conv.weight"]
    assert list(read_weights(tmp_path).arrays) == ["conv.weight"]


CONFIGURATION = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(type='ResNetV1c', dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4)),
    decode_head=dict(align_corners=True, norm_cfg=norm_cfg))
img_norm_cfg = {'mean': [123.675, 116.28, 103.53], 'to_rgb': True}
harm = __import__('os').mkdir('harm')
"""


@pytest.mark.parametrize("version", [0, 1])
def test_the_configuration_of_mmsegmentation_is_read_and_not_run(version, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes, palette = ("road", "sky"), [[0, 0, 0], [255, 0, 0]]
    meta = {"config": CONFIGURATION, "CLASSES": classes, "PALETTE": palette}
    if version:
        dataset = {"classes": list(classes), "palette": palette}
        meta = {"cfg": CONFIGURATION, "dataset_meta": dataset}
    weights = read_weights(write({"meta": meta, "state_dict": state_dict()}, tmp_path))
    assert weights.class_names == classes
    model = weights.configuration["model"]
    assert model["backbone"]["multi_grid"] == [1, 2, 4]
    assert model["decode_head"] == {"align_corners": True, "norm_cfg": None}
    assert weights.configuration["img_norm_cfg"]["to_rgb"] is True
    assert not (tmp_path / "harm").exists()


class HistoryBuffer:
    """Log that mmsegmentation 1.x stores in checkpoints, with its methods."""

    __module__ = "mmengine.logging.history_buffer"

    def __init__(self):
        self.values, self.counts = np.arange(3.0), np.arange(3)

    def __getstate__(self):
        return {**self.__dict__, "statistics_methods": {"min": HistoryBuffer.min}}

    def min(self):
        return self.values.min()

    min.__module__ = __module__


def test_logs_of_mmsegmentation_are_ignored(tmp_path, monkeypatch):
    packages = ("mmengine", "mmengine.logging", HistoryBuffer.__module__)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    sys.modules[HistoryBuffer.__module__].HistoryBuffer = HistoryBuffer
    logs = {"log_scalars": {"train/loss": HistoryBuffer()}}
    source = write({"meta": {}, "state_dict": state_dict(), "message_hub": logs}, tmp_path)
    monkeypatch.undo()
    assert list(read_weights(source).arrays) == ["conv.weight"]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_directory_with_a_configuration(name, tmp_path):
    if name.endswith(".bin"):
        torch.save(state_dict(), tmp_path / name)
    else:
        save_file({"conv.weight": KERNEL.numpy()}, tmp_path / name)
    configuration = {"architectures": ["Net"], "id2label": {"1": "cat", "0": "background"}}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    weights = read_weights(tmp_path)
    assert list(weights.arrays) == ["conv.weight"]
    assert weights.configuration == configuration
    assert weights.class_names == ("background", "cat")


@pytest.mark.parametrize("text", ['{"lr": 0.1}', "[1, 2]"])
def test_unrelated_config_files_are_ignored(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert read_weights(write(state_dict(), tmp_path)).configuration == {}


def test_a_damaged_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ')
    with pytest.raises(DeepLabError, match=r"config\.json in the same directory cannot be read"):
        read_weights(write(state_dict(), tmp_path))


class Harmful:
    """Calls a function where a pickle that holds it is loaded without care."""

    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def _harmful(path):
    torch.save({"a": KERNEL, "b": Harmful()}, path)


def _harmful_pickle(path):
    torch.save({"b": Harmful()}, path, _use_new_zipfile_serialization=False)


def _whole_network(path):
    torch.save(torch.nn.Conv2d(3, 3, 1), path)


def _truncated(path):
    torch.save({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:9000])


def _other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../outside.txt", "x")


def _tar(path):
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("tensors"))


def _integers(path):
    torch.save({"a": torch.arange(3)}, path)


def _sparse(path):
    torch.save({"a": torch.eye(3).to_sparse()}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_harmful, r"is refused because it may run code: it contains \w+\.mkdir"),
        (_harmful_pickle, r"may run code: it contains \w+\.mkdir"),
        (_whole_network, r"may run code: it contains torch\.nn\.modules\.conv\.Conv2d"),
        (_truncated, "damaged, or not written by torch.save"),
        (_other_zip, "damaged, or not written by torch.save"),
        (_tar, "the file is a tar archive, the format of early releases of PyTorch"),
        (lambda path: path.write_bytes(b""), "damaged, or not written"),
        (lambda path: path.write_bytes(b"hello world"), "damaged, or not written"),
        (lambda path: torch.save([KERNEL], path), "a list, but no state dict"),
        (lambda path: torch.save({"epoch": 3}, path), "the file contains epoch, but no state dict"),
        (lambda path: torch.save({}, path), "the file contains nothing, but no state dict"),
        (_integers, "no floating-point arrays"),
        (_sparse, "a is sparse or quantized"),
    ],
)
def test_hostile_and_broken_files_are_refused(make, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    make(tmp_path / "network.pth")
    with pytest.raises(DeepLabError, match=message) as caught:
        read_weights(tmp_path / "network.pth")
    assert str(caught.value).startswith(str(tmp_path / "network.pth"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


def _header(length, header=b"{}"):
    return struct.pack("<Q", length) + header


WRONG_SHAPE = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world",
        _header(2**40),
        _header(100, b"{"),
        _header(2, b"[]"),
        _header(len(WRONG_SHAPE), WRONG_SHAPE) + bytes(4),
    ],
    ids=["empty", "text", "oversized", "truncated", "no-names", "wrong-shape"],
)
def test_broken_safetensors_are_refused(content, tmp_path):
    path = tmp_path / "network.safetensors"
    path.write_bytes(content)
    with pytest.raises(DeepLabError, match="damaged, or not a safetensors file"):
        read_weights(path)


def test_safetensors_cut_short_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    save_file({"a": np.zeros(1000, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DeepLabError, match="damaged, or not a safetensors file"):
        read_weights(path)
