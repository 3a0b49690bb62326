"""A small recipe of each family trains two real steps on data in the layout of its dataset."""

import jax
import numpy as np
import pytest

import deeplab_jax
from deeplab_jax import checkpointing
from deeplab_jax import config as configs
from deeplab_jax.training.writers import read_rows

# What a crop of 65 × 65 and a batch of two need; all else stays the recipe's.
SMALL = (
    "augmentation.crop_size=65,65",
    "training.batch_size=2",
    "training.init_from=",
    "training.init_scope=all",
    "evaluation.size=65,81",
    "evaluation.batch_size=2",
    "log_every_steps=1",
)


def run(reference, data_dir, workdir, *changes):
    """Trains two steps and returns the config."""
    config = configs.load(f"{reference},steps=2" if ":" in reference else f"{reference}:steps=2")
    for change in (*SMALL, f"data.data_dir={data_dir}", *changes):
        configs.override(config, *change.split("=", 1))
    assert deeplab_jax.train(config, workdir).step == 2
    losses = [row["loss"] for row in read_rows(workdir) if "loss" in row]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "changes"),
    [
        ("deeplab_v1", ()),
        ("deeplab_v2:init=none", ("model.backbone=resnet_18", "training.accumulation_steps=2")),
        (
            "deeplab_v3",
            ("model.backbone=resnet_18_beta", "model.multi_grid=1,2", "model.aspp_channels=32"),
        ),
        ("deeplab_v3plus", ("model.backbone=xception_41", "model.aspp_channels=32")),
        (
            "mobilenet:backbone=mobilenet_v3_small,dataset=cityscapes",
            ("model.image_pooling=global",),
        ),
    ],
)
def test_a_recipe_of_each_family_trains(reference, changes, tiny_data, tmp_path):
    run(reference, tiny_data, tmp_path / "run", *changes)


@pytest.mark.slow
def test_the_second_stage_starts_from_the_first(tiny_data, tmp_path):
    """Its frozen statistics are those of the first stage, and images with chairs appear twice."""
    # After so few steps statistics would still be those of the start, and gradients vanish.
    small = ("model.depth_multiplier=0.25", "model.aspp_channels=16", "model.batch_norm_decay=0.1")
    first, second = tmp_path / "first", tmp_path / "second"
    run("mobilenet:aspp", tiny_data, first, *small)
    start = f"training.init_from={first}"
    config = run(f"mobilenet:aspp,stage=2,init={first}", tiny_data, second, *small, start)
    assert config.data.oversample_classes
    before, after = map(checkpointing.read_variables, (first, second))
    for variables, rates in ((before, (6, 12, 18)), (after, (12, 24, 36))):
        branches = [variables["batch_stats"]["aspp"].pop(f"rate_{rate}") for rate in rates]
        variables["batch_stats"]["branches"] = dict(enumerate(branches))
    for path, array in jax.tree.leaves_with_path(before["batch_stats"]):
        kept = after["batch_stats"]
        for key in path:
            kept = kept[key.key]
        assert np.array_equal(array, kept)
    for part in ("backbone", "classifier"):
        pairs = zip(
            *(jax.tree.leaves(found["params"][part]) for found in (before, after)), strict=True
        )
        assert any(not np.array_equal(*pair) for pair in pairs)
