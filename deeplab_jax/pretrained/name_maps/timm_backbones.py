"""Names in timm of the backbones `timm/…`, one row for each family."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.backbones import convnext
from deeplab_jax.pretrained.name_maps.rules import Rule, outputs
from deeplab_jax.pretrained.weights import PublishedWeights

Arrays = Mapping[str, np.ndarray]
PREFIX = "timm/"


class Family(NamedTuple):
    """Family of networks with one name map.

    Attributes:
      names: names of the networks in timm.
      identify: function that returns the name of a network by the names and shapes of its arrays,
        or None if they belong to no network of this family.
      rules: function that maps a name to the name map of the image classifier.
      classifier: scope of the last layer of the image classifier.
    """

    names: Sequence[str]
    identify: Callable[[Arrays], str | None]
    rules: Callable[[str], tuple[Rule, ...]]
    classifier: str


def identify(weights: PublishedWeights) -> dict[str, Any] | None:
    """Returns the keywords of an image classifier on a `timm/…` backbone, or None.

    The `config.json` beside the weights takes precedence over names and shapes.
    """
    named = str(weights.configuration.get("architecture"))
    for family in FAMILIES:
        name = named if named in family.names else family.identify(weights.arrays)
        classes = outputs(weights.arrays, family.classifier)
        if name is not None and classes is not None:
            return {"backbone": f"{PREFIX}{name}", "num_classes": classes}
    return None


def rules(backbone: str) -> tuple[Rule, ...]:
    """Returns the name map of an image classifier on a `timm/…` backbone."""
    name = backbone.removeprefix(PREFIX)
    family = next(family for family in FAMILIES if name in family.names)
    return (*family.rules(name), Rule("classifier", family.classifier))


def _same(ours: str, theirs: str) -> Rule:
    """Returns a rule for a layer that has both names of kernels and names of normalizations."""
    return Rule(ours, theirs, theirs)


def _convnext(arrays: Arrays) -> str | None:
    stem, version = arrays.get("stem.0.weight"), 1
    if stem is None or stem.shape[1:] != (3, 4, 4):
        return None
    if "stages.0.blocks.0.mlp.grn.weight" in arrays:
        version = 2
    blocks = {tuple(name.split(".")[1:4:2]) for name in arrays if name.startswith("stages.")}
    found = tuple(
        len({block for stage, block in blocks if stage == str(number) and block.isdecimal()})
        for number in range(4)
    )
    for name, (depths, widths, own) in convnext.SIZES.items():
        if (depths, widths[0], own) == (found, stem.shape[0], version):
            return name
    return None


def _convnext_rules(name: str) -> tuple[Rule, ...]:
    del name
    stage, ours = "stages.{s-1}", "backbone/stage_{s}"
    block = f"{stage}.blocks.{{b-1}}"
    inside = {"depthwise": "conv_dw", "expand": "mlp.fc1", "project": "mlp.fc2"}
    return (
        _same("backbone/stem/patches", "stem.0"),
        _same("backbone/stem/norm", "stem.1"),
        _same(f"{ours}/downsample/norm", f"{stage}.downsample.0"),
        _same(f"{ours}/downsample/patches", f"{stage}.downsample.1"),
        Rule(f"{ours}/block_{{b}}", block, f"{block}.norm"),
        *(_same(f"{ours}/block_{{b}}/{part}", f"{block}.{at}") for part, at in inside.items()),
        _same(f"{ours}/block_{{b}}/response_norm", f"{block}.mlp.grn"),
        _same("pooled_norm", "head.norm"),
    )


FAMILIES = (Family(tuple(convnext.SIZES), _convnext, _convnext_rules, "head.fc"),)
