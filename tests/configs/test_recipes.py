"""The papers' recipes: every field is pinned, and every network and optimizer can be built."""

import dataclasses
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from deeplab_jax.configs._recipes import CONVENTIONS
from ml_collections import ConfigDict
from recipe_texts import ARGUMENTS, CASES, architecture, golden_text, load

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture, DeepLab
from deeplab_jax.parallel import make_mesh
from deeplab_jax.pretrained import list_pretrained
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checks import check_crop_size, check_frozen_parts
from deeplab_jax.training.loss import make_objective
from deeplab_jax.training.optimizers import make_optimizer, make_schedule
from deeplab_jax.training.state import StateSpec

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Of 21 classes, by a counter that has nothing of this code.
PARAMETERS = {
    "deeplab_v1:": 20_505_429,
    "deeplab_v1:fov=7x7": 134_346_581,
    "deeplab_v1:fov=4x4": 65_140_565,
    "deeplab_v2:": 44_048_532,
    "deeplab_v2:head=large_fov": 42_887_253,
    "deeplab_v2:head=plain": 42_543_189,
    "deeplab_v2:backbone=vgg_16": 37_877_652,
    "deeplab_v3:": 58_164_437,
    "deeplab_v3:backbone=resnet_50_beta": 39_172_309,
    "deeplab_v3:backbone=resnet_101": 58_040_661,
    "deeplab_v3plus:": 41_055_413,
    "deeplab_v3plus:backbone=xception_71": 43_477_837,
    "deeplab_v3plus:backbone=resnet_101_beta": 59_468_085,
    "mobilenet:": 2_113_557,
    "mobilenet:width=0.5": 697_013,
}


class Refuser(Reporter):
    """Reporter that fails on a warning."""

    def warning(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_field_is_as_it_was(name):
    """DEEPLAB_UPDATE_GOLDEN=1 rewrites the files; review the diff."""
    path, text = GOLDEN / f"{name}.txt", golden_text(name)
    if os.environ.get("DEEPLAB_UPDATE_GOLDEN") == "1":
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8").splitlines() == text.splitlines()


@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_recipe_fits_together(name, text):
    config = configs.load(f"{name}:{text}")
    assert configs.differences(config, load(name, text).config) == []
    assert configs.differences(config, configs.from_json(configs.to_json(config))) == []
    network = architecture(config)
    configs.check(config)
    check_frozen_parts(config, network, Refuser())
    crop = tuple(config.augmentation.crop_size)
    check_crop_size(crop, network, config.strict_crop, Refuser())
    make_objective(config.loss, network)
    assert config.training.batch_size % config.training.accumulation_steps == 0
    assert config.loss.supervise_all_scales == bool(network.multi_scale)
    init, published = config.training.init_from, list_pretrained()
    assert not init or init.startswith("runs/") or init in published
    if config.training.init_scope == "backbone":
        assert published[init].overrides["backbone"] == network.backbone
        # Other widths are rounded in the published classifiers, and would not fit.
        assert network.depth_multiplier == 1


def _plain(config: ConfigDict) -> Architecture:
    """Returns the network without keywords that do not change the shapes of parameters."""
    same = {"num_classes": 21, "pooling_crop": (65, 65), "multi_scale": ()}
    same |= {"preprocessing": "none", "stride_placement": "slim", "frozen_batch_norm": False}
    network = architecture(config)
    if network.stride_placement is None:
        same.pop("stride_placement")
    return dataclasses.replace(network, **same)


def _distinct() -> dict[Architecture, str]:
    """Returns one recipe for each different network."""
    found: dict[Architecture, str] = {}
    for name, text in CASES:
        found.setdefault(_plain(load(name, text).config), f"{name}:{text}")
    return found


@pytest.mark.parametrize("reference", _distinct().values())
def test_network_and_optimiser_are_built(reference):
    config = configs.load(reference)
    steps = config.training.num_steps
    optimizer = make_optimizer(config.optimizer, make_schedule(config.schedule, steps))
    network = _plain(config)
    mesh = make_mesh(jax.devices()[:1])
    # The shapes of parameters do not depend on the crop.
    state = StateSpec(DeepLab(network), optimizer, mesh, (65, 65)).abstract()
    number = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"]))
    assert number == PARAMETERS.get(reference, number) > 400_000


def test_the_recipe_voc_starts_from_imagenet_weights_of_its_backbone():
    config = configs.load("voc")
    network, init = architecture(config), config.training.init_from
    assert config.training.init_scope == "backbone"
    assert list_pretrained()[init].overrides["backbone"] == network.backbone == "resnet_50"
    assert {name: getattr(network, name) for name in CONVENTIONS[init]} == CONVENTIONS[init]
    assert not configs.load("voc:cpu").training.init_from


def test_every_recipe_of_the_documentation_resolves():
    """Also, every file has a row in the tables."""
    page = (pathlib.Path(__file__).parents[2] / "docs/guides/recipes.md").read_text("utf-8")
    rows = re.findall(r"^\| `((?:deeplab_v|mobilenet)[^`]*)`", page, re.MULTILINE)
    assert len(rows) == len(set(rows)) > 30
    for reference in rows:
        configs.load(reference)
    assert {reference.partition(":")[0] for reference in rows} == set(ARGUMENTS)


@pytest.mark.parametrize(
    ("reference", "step", "rate"),
    [
        ("deeplab_v1", 1999, 1e-3),
        ("deeplab_v1", 2000, 1e-4),
        ("deeplab_v1", 5999, 1e-5),
        ("deeplab_v2", 10_000, 2.5e-4 * 0.535887),
        ("deeplab_v3", 15_000, 0.0037512),
        ("deeplab_v3:stage=2,init=runs/x", 0, 1e-3),
        ("deeplab_v3plus:dataset=cityscapes", 45_000, 1e-2 * 0.535887),
    ],
)
def test_learning_rates(reference, step, rate):
    config = configs.load(reference)
    schedule = make_schedule(config.schedule, config.training.num_steps)
    assert float(schedule(jnp.int32(step))) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize(("backbone", "stride"), [("mobilenet_v2", 16), ("mobilenet_v3_large", 32)])
def test_fine_tuning_after_coco_keeps_the_output_stride_of_the_network(backbone, stride):
    reference = f"mobilenet:backbone={backbone},dataset=cityscapes,from_coco,init=runs/coco"
    assert configs.load(reference).model.output_stride == stride


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("deeplab_v1:fov=5x5", "unknown fov '5x5'"),
        ("deeplab_v1:msc", r"msc requires a trained DeepLab.*init=runs/first"),
        ("deeplab_v1:dataset=voc", "unknown config argument 'dataset'"),
        ("deeplab_v2:backbone=vgg_16,head=plain", "head of vgg_16"),
        ("deeplab_v2:backbone=vgg_16,msc=true", "msc=true requires backbone=resnet_101"),
        ("deeplab_v2:dataset=ade20k", r"dataset 'ade20k'.*cityscapes"),
        ("deeplab_v3:split=trainvol", r"split of voc.*'trainval'"),
        ("deeplab_v3:stage=2", "stage=2 requires the network of stage 1"),
        ("deeplab_v3:stage=2,init=none", "stage=2 requires the network of stage 1"),
        ("deeplab_v3plus:from_coco,init=none", "from_coco requires a network trained on coco_voc"),
        ("deeplab_v1:msc,init=none", "msc requires a trained DeepLab"),
        ("deeplab_v3:stage=3", "unknown stage '3'"),
        (
            "deeplab_v3:stage=2,dataset=cityscapes,init=x",
            "requires dataset=voc and a backbone other",
        ),
        ("deeplab_v3plus:dataset=ade20k,stage=2,init=x", "stage=2 .* requires dataset=voc"),
        ("deeplab_v3plus:from_coco,stage=2,init=x", "from_coco concerns stage 1"),
        ("deeplab_v3:dataset=coco_voc,stage=2,init=x", "stage=2 .* requires dataset=voc"),
        ("mobilenet:dataset=ade20k,stage=2,init=x", "stage=2 .* requires dataset=voc"),
        ("deeplab_v3plus:from_coco", "from_coco requires a network trained on coco_voc"),
        ("deeplab_v3:from_coco,dataset=coco_voc,init=x", "from_coco requires a dataset other than"),
        ("deeplab_v3plus:backbone=xception_66", "did you mean 'xception_65'"),
        ("mobilenet:backbone=mobilenet_v3_large", r"dataset 'voc'.*cityscapes"),
        (
            "mobilenet:backbone=mobilenet_v3_large,dataset=cityscapes,width=0.75",
            "width and aspp require backbone=mobilenet_v2",
        ),
        (
            "mobilenet:backbone=mobilenet_v3_small,dataset=cityscapes,aspp",
            "width and aspp require backbone=mobilenet_v2",
        ),
        ("mobilenet:width=0.6", "no published weights for width=0.6; .*, as in init="),
    ],
)
def test_invalid_recipe_arguments_are_refused(reference, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        configs.load(reference)
