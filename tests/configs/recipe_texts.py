"""Recipes of the papers with relevant arguments, and their golden texts."""

import functools
import importlib.util
import pathlib

from deeplab_jax import config as configs
from deeplab_jax.data import descriptors
from deeplab_jax.models import Architecture
from deeplab_jax.training.workdir import network_of

ROOT = pathlib.Path(__file__).parents[2]
DESCRIPTORS = {
    "voc_segmentation": descriptors.VOC,
    "cityscapes": descriptors.CITYSCAPES,
    "ade20k": descriptors.ADE20K,
    "coco_voc": descriptors.VOC,
    "coco_stuff": descriptors.COCO_STUFF,
    "pascal_context": descriptors.PASCAL_CONTEXT,
    "pascal_person_part": descriptors.PASCAL_PERSON_PART,
}
# Of each file; the first without any, the others are told by how they differ from it.
ARGUMENTS = {
    "deeplab_v1": (
        "",
        "fov=7x7",
        "fov=4x4",
        "fov=4x4,rate=8",
        "msc,init=runs/deeplab_v1",
        "split=train",
        "split=trainval_aug",
    ),
    "deeplab_v2": (
        "",
        "head=plain",
        "head=large_fov",
        "msc=false",
        "init=torchvision_resnet101_imagenet",
        "init=runs/coco",
        "init=none",
        "split=trainval_aug",
        "backbone=vgg_16",
        "backbone=vgg_16,head=aspp_small",
        "backbone=vgg_16,head=large_fov",
        "backbone=vgg_16,head=large_fov,schedule=step",
        "dataset=pascal_context",
        "dataset=pascal_context,backbone=vgg_16,head=large_fov",
        "dataset=pascal_person_part,head=plain",
        "dataset=cityscapes",
        "dataset=coco_stuff,backbone=vgg_16,head=large_fov",
    ),
    "deeplab_v3": (
        "",
        "backbone=resnet_50_beta",
        "backbone=resnet_101",
        "head=cascade",
        "split=train",
        "stage=2,init=runs/deeplab_v3",
        "head=cascade,stage=2,init=runs/deeplab_v3",
        "dataset=coco_voc",
        "from_coco,init=runs/coco",
        "dataset=cityscapes",
        "dataset=cityscapes,split=trainval_coarse",
    ),
    "deeplab_v3plus": (
        "",
        "backbone=resnet_101_beta",
        "backbone=xception_71",
        "split=trainval",
        "stage=2,init=runs/deeplab_v3plus",
        "dataset=coco_voc",
        "init=xception65_coco",
        "from_coco,init=runs/coco",
        "dataset=cityscapes",
        "dataset=cityscapes,backbone=xception_71,split=train_coarse",
        "dataset=ade20k",
    ),
    "mobilenet": (
        "",
        "aspp",
        "width=0.5",
        "width=0.75",
        "stage=2,init=runs/mobilenet_v2",
        "dataset=coco_voc",
        "from_coco,init=runs/coco",
        "dataset=cityscapes",
        "dataset=cityscapes,from_coco,init=runs/coco",
        "dataset=ade20k",
        "backbone=mobilenet_v3_large,dataset=cityscapes",
        "backbone=mobilenet_v3_small,dataset=cityscapes",
    ),
}
CASES = [(name, text) for name, texts in ARGUMENTS.items() for text in texts]


def load(name: str, text: str):
    """Returns a recipe: its config and its open points."""
    return _module(name).recipe(text or None)


def architecture(config) -> Architecture:
    """Returns the architecture that a config specifies."""
    return network_of(config, DESCRIPTORS[config.data.name].num_classes)


def golden_text(name: str) -> str:
    """Returns every field of a recipe, then what each choice of arguments changes."""
    first, *others = ARGUMENTS[name]
    start = _lines(name, first)
    parts = [f"# {name}\n" + "".join(f"{line}\n" for line in start.values())]
    for text in others:
        lines = _lines(name, text)
        changed = [line for key, line in lines.items() if start.get(key) != line]
        gone = [f"- {key}" for key in start if key not in lines]
        body = "".join(f"{line}\n" for line in (*changed, *gone))
        parts.append(f"# {name}:{text}\n{body}")
    return "\n".join(parts)


def _lines(name: str, text: str) -> dict[str, str]:
    recipe = load(name, text)
    fields = dict(configs.flatten(recipe.config))
    model = architecture(recipe.config).describe()
    # The network with all defaults decided says more than the keywords that were given.
    shown = {key: value for key, value in fields.items() if not key.startswith("model.")}
    shown |= {f"model.{key}": value for key, value in model.items()}
    shown["model.architecture"] = fields["model.architecture"]
    unsaid = {key: "" for key in recipe.open if key not in shown}
    return {
        key: _line(key, value, recipe.open.get(key), field=key in shown)
        for key, value in sorted((shown | unsaid).items())
    }


def _line(key: str, value: object, why: str | None, field: bool) -> str:
    said = f"{key} = {value!r}" if field else key
    return said if why is None else f"{said}  # open: {why}"


@functools.cache
def _module(name: str):
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / f"configs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
