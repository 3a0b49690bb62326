"""Peers: what they refuse, and that their sides do the same."""

import importlib.util
import math

import numpy as np
import pytest

from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import DeepLabError
from experiments.benchmarks import baselines
from experiments.benchmarks.__main__ import main
from experiments.benchmarks.baselines import Match, Workload, compare, measure

SMALL = (65, 65)
PYTORCH = [name for name, entry in baselines.BASELINES.items() if entry.pytorch]
LIBRARIES = {
    "torchvision": "torchvision",
    "transformers": "transformers",
    "segmentation_models": "segmentation_models_pytorch",
}


def _installed(baseline: str) -> bool:
    """Whether a baseline in PyTorch can be had; imports nothing."""
    return all(map(importlib.util.find_spec, ("torch", LIBRARIES[baseline])))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--baseline=torchvison"], "torchvision"),
        (["--baseline=straightforward", "--network=v4"], "v3/mobilenet_v2"),
        (["--baseline=straightforward", "--compiled"], "segmentation_models"),
        (["--baseline=tflite", "--dtype=bfloat16"], "torchvision"),
        (["--baseline=torchvision", "--dtype=float16"], "bfloat16"),
        (["--baseline=segmentation_models", "--size=513x513"], "512x512"),
    ],
)
def test_mistakes_are_reported(capsys, flags, message):
    assert main(["forward", *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fast_paths", "--size=129x129"], "--size has no effect on the benchmark fast_paths"),
        (["training", "--num_images=9"], "--num_images has no effect on the benchmark training"),
        (["forward", "--repetitions=0"], "--repetitions=0 must be at least 1"),
    ],
)
def test_flags_without_effect_are_refused(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "batch_size"), [("forward", 1), ("training", 4)])
def test_training_steps_have_a_default_batch_that_image_pooling_allows(
    monkeypatch, kind, batch_size
):
    batches = []

    def make_match(name, work, training):
        batches.append(work.batch_size)
        raise DeepLabError("nothing is timed")

    monkeypatch.setattr(baselines, "make_match", make_match)
    assert main([kind]) == 2
    assert batches == [batch_size]


@pytest.mark.parametrize("baseline", ["transformers", "tflite", "keras_hub"])
def test_baselines_without_training_are_refused(baseline):
    with pytest.raises(DeepLabError, match=r"no training steps; .*: .*segmentation_models"):
        baselines.make_match(baseline, Workload("", SMALL), training=True)


@pytest.mark.parametrize("baseline", PYTORCH)
def test_missing_packages_are_reported(baseline):
    if _installed(baseline):
        pytest.skip(f"{LIBRARIES[baseline]} is installed")
    with pytest.raises(DeepLabError, match="pip install"):
        baselines.make_match(baseline, Workload("", (64, 64)), training=False)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", baselines.DTYPES)
@pytest.mark.parametrize(("baseline", "size"), [("torchvision", 97), ("transformers", 65)])
def test_same_outputs(baseline, size, dtype):
    if not _installed(baseline):
        pytest.skip(f"{LIBRARIES[baseline]} is not installed")
    network = "deeplabv3_mobilenet_v3_large" if baseline == "torchvision" else ""
    work = Workload(network, (size, size), 2, dtype)
    match = baselines.make_match(baseline, work, training=False)
    assert match.difference < (1e-4 if dtype == "float32" else 0.1)
    assert match.theirs.peak_bytes > 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["torchvision", "segmentation_models"])
def test_training_losses_are_those_of_chance_at_first(baseline):
    if not _installed(baseline):
        pytest.skip(f"{LIBRARIES[baseline]} is not installed")
    match = baselines.make_match(baseline, Workload("", (64, 64), 2), training=True)
    for side in (match.ours, match.theirs):
        assert 0 < side.run() < 4 * math.log(21)


def test_turns_are_compared_by_their_ratios():
    found = compare([(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)])
    assert found == {"ratio": 1.0, "interval": [0.5, 1.5]}


@pytest.mark.parametrize(
    ("count", "first", "last"),
    # Published tables of ranks: a 95 % interval of the median of n values reaches from rank k to
    # rank n + 1 - k, with k = 1, 2, 4, 6 for n = 6, 10, 15, 20.
    [(5, 1, 5), (6, 1, 6), (10, 2, 9), (15, 4, 12), (20, 6, 15)],
)
def test_interval_of_the_median_has_the_published_ranks(count, first, last):
    found = compare([(float(rank), 1.0) for rank in range(1, count + 1)])
    assert found["interval"] == [first, last]


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
