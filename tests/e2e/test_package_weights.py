"""ImageNet weights from a package index through the real commands: classify, train from them."""

import json

import pytest
from PIL import Image

from deeplab_jax.training.hooks import read_rows

pytestmark = pytest.mark.slow
LITE = "efficientnet_lite{size}_imagenet"
# Every one of them is right.
EXPECTED = {
    "chelsea": {"Egyptian cat", "tabby", "tiger cat"},
    "coffee": {"espresso", "cup", "coffee mug", "consomme"},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    data = pytest.importorskip("skimage.data", reason="its photographs are needed")
    folder = tmp_path_factory.mktemp("photos")
    for name in EXPECTED:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache in which nothing has been downloaded yet."""
    return str(tmp_path_factory.mktemp("cache"))


def run(commands, *words, **environment):
    """Runs a command; skips the test if no package index can be reached."""
    with commands.start(*words, **environment) as process:
        out, error = process.communicate(timeout=900)
    if process.returncode and "with pip (" in error:
        pytest.skip(f"no package index can be reached: {error.strip().splitlines()[-1]}")
    assert process.returncode == 0, error
    return out, error


@pytest.mark.parametrize("size", [0, 1, 2])
def test_photographs_are_classified(commands, photos, cache, tmp_path, size):
    words = ["predict", f"--model={LITE.format(size=size)}", f"--output={tmp_path}", photos]
    run(commands, *words, DEEPLAB_CACHE=cache)
    for name, expected in EXPECTED.items():
        found = json.loads((tmp_path / f"{name}_classes.json").read_text())["classes"]
        assert {entry["class_name"] for entry in found[:3]} <= expected


def test_training_starts_from_them(commands, cache, tmp_path, read_lines):
    name, workdir = LITE.format(size=0), tmp_path / "run"
    changes = (
        "model.architecture=deeplab_v3plus",
        "model.backbone=timm/tf_efficientnet_lite0",
        "model.depth_multiplier=1.0",
        f"training.init_from={name}",
        "training.init_scope=backbone",
        "training.num_steps=2",
    )
    _, error = run(commands, *commands.train_words(workdir, *changes), DEEPLAB_CACHE=cache)
    (loaded,) = (line for line in read_lines(error) if "arrays from" in line)
    # 48 convolutions with scale, offset, mean and variance.
    assert "loaded 240 arrays" in loaded
    assert "parts with random initialization: aspp, decoder, classifier" in loaded
    # The conventions of the weights are those of the backbone.
    assert "consider --config.model" not in error
    assert max(row["step"] for row in read_rows(workdir)) == 2
