"""Peers: what they refuse, and that their sides do the same."""

import importlib.util
import math

import numpy as np
import pytest

from deeplab_jax.benchmark import peers
from deeplab_jax.benchmark.contenders import Contender, Match, Workload, compare, measure
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError

SMALL = (65, 65)
LIBRARIES = {
    "torchvision": "torchvision",
    "transformers": "transformers",
    "segmentation_models": "segmentation_models_pytorch",
}


def _installed(peer: str) -> bool:
    """Whether a peer in PyTorch can be had; nothing is imported, which only peers know how to."""
    return all(map(importlib.util.find_spec, ("torch", LIBRARIES[peer])))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--peer=torchvison"], "torchvision"),
        (["--peer=straightforward", "--network=v4"], "v3/mobilenet_v2"),
        (["--peer=straightforward", "--compiled"], "segmentation_models"),
        (["--peer=tflite", "--dtype=bfloat16"], "torchvision"),
        (["--peer=torchvision", "--dtype=float16"], "bfloat16"),
        (["--peer=segmentation_models", "--size=513x513"], "512x512"),
    ],
)
def test_mistakes_are_told(capsys, flags, message):
    assert run(["benchmark", "inference", *flags], Console()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("peer", ["transformers", "tflite", "keras_hub"])
def test_some_are_not_trained(peer):
    with pytest.raises(DeepLabError, match=r"is not trained here; legal: .*segmentation_models"):
        peers.make_match(peer, Workload("", SMALL), training=True)


@pytest.mark.parametrize("peer", peers.PYTORCH_PEERS)
def test_what_is_not_installed_is_told(peer):
    if _installed(peer):
        pytest.skip(f"{LIBRARIES[peer]} is installed")
    with pytest.raises(DeepLabError, match="pip install"):
        peers.make_match(peer, Workload("", (64, 64)), training=False)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", peers.DTYPES)
@pytest.mark.parametrize(("peer", "size"), [("torchvision", 97), ("transformers", 65)])
def test_same_outputs(peer, size, dtype):
    if not _installed(peer):
        pytest.skip(f"{LIBRARIES[peer]} is not installed")
    network = "deeplabv3_mobilenet_v3_large" if peer == "torchvision" else ""
    match = peers.make_match(peer, Workload(network, (size, size), 2, dtype), training=False)
    assert match.difference < (1e-4 if dtype == "float32" else 0.1)
    assert match.theirs.peak_bytes > 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["torchvision", "segmentation_models"])
def test_training_losses_are_those_of_chance_at_first(peer):
    if not _installed(peer):
        pytest.skip(f"{LIBRARIES[peer]} is not installed")
    match = peers.make_match(peer, Workload("", (64, 64), 2), training=True)
    for side in (match.ours, match.theirs):
        assert 0 < side.run() < 4 * math.log(21)


def test_turns_are_compared_by_their_ratios():
    found = compare([(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)])
    assert found == {"ratio": 1.0, "spread": [0.5, 1.5]}


def test_measured_in_turns():
    order = []
    match = Match(
        "work", *(Contender(name, lambda name=name: order.append(name)) for name in "ab"), 6.0
    )
    figures = measure(match, 3)
    assert order == list("ab" * 4)
    assert figures["operations_per_second"] == pytest.approx(6 / figures["seconds"])
    assert np.isfinite(figures["ratio"])


def test_titles_name_what_is_done():
    assert Workload("net", (33, 65), 2).title("forward") == "net, forward, 2x33x65"
    assert Workload("net", SMALL, dtype="bfloat16").title("step") == "net, step, 1x65x65, bfloat16"
