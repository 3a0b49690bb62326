"""Class names and colours of a converted model's outputs."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

from deeplab_jax.data.descriptors import ADE20K, CITYSCAPES, VOC, Descriptor, describe
from deeplab_jax.errors import DeepLabError

# Data sets whose number of classes tells them.
KNOWN = {descriptor.num_classes: descriptor for descriptor in (VOC, CITYSCAPES, ADE20K)}
BACKGROUND = "background"


def imagenet_classes() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1,000 classes in the order of their WordNet ids."""
    text = (
        importlib.resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8")
    )
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def describe_classes(count: int, names: Sequence[str] | None, source: Path) -> Descriptor:
    """Returns names and colours of so many classes.

    Args:
      count: of the outputs.
      names: of the classes, if told; else those of the data set with so many classes, else numbers.
      source: of the model, for the error.

    Raises:
      DeepLabError: there are more or fewer names than outputs.
    """
    if names is not None:
        if len(names) != count:
            raise DeepLabError(f"{source} has {count} outputs, but {len(names)} class names")
        same = KNOWN.get(count)
        palette = same.palette if same and same.class_names == tuple(names) else None
        return describe("", names, palette)
    if count in KNOWN:
        return KNOWN[count]
    if count in (1000, 1001):
        # Slim's classifiers have an output for the background before the classes.
        return describe("imagenet", [BACKGROUND] * (count - 1000) + list(imagenet_classes()))
    return describe("", [f"class_{number}" for number in range(count)])
