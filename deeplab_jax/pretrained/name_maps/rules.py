"""Name maps as data: rules from module paths to the names of another codebase."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.pretrained.weights import PublishedWeights

FIELD = re.compile(r"{(\w+)([+-]\d+)?}")


class Rule(NamedTuple):
    """Scopes of the arrays of some modules.

    `{n}` in `ours` matches any text without a slash. In `theirs` and `norm` it stands for the same
    text, and `{n-2}` for a number that is smaller by 2.

    Attributes:
      ours: path of a module with a kernel, such as `backbone/layer_{n}/{part}`.
      theirs: scope of the kernel and bias.
      norm: scope of the batch normalization; empty where the convention derives it.
      moved: number of last input channels of the kernel that come first here, where maps are
        concatenated in another order.
    """

    ours: str
    theirs: str
    norm: str = ""
    moved: int = 0


class Scopes(NamedTuple):
    """Scopes of the arrays of one module.

    Attributes:
      convolution: scope of the kernel and bias.
      norm: scope of the batch normalization.
      moved: see `Rule`.
    """

    convolution: str
    norm: str
    moved: int = 0


def translate(path: str, rules: Sequence[Rule], default_norm: str = "") -> Scopes | None:
    """Returns the scopes of a module by the first rule that matches, or None.

    Args:
      path: path of the module, without `norm`.
      rules: name map of the network.
      default_norm: template of the scope of the normalization, with `{convolution}`.
    """
    for rule in rules:
        found = _pattern(rule.ours).fullmatch(path)
        if found:
            convolution = _filled(rule.theirs, found.groupdict())
            norm = _filled(rule.norm, found.groupdict()) or default_norm
            return Scopes(convolution, norm.format(convolution=convolution), rule.moved)
    return None


@functools.cache
def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(FIELD.sub(r"(?P<\1>[^/]+)", ours))


def _filled(template: str, values: Mapping[str, str]) -> str:
    def value(field: re.Match[str]) -> str:
        name, offset = field.groups()
        return str(int(values[name]) + int(offset)) if offset else values[name]

    return FIELD.sub(value, template)


# Architecture of an image classifier, which `create_classifier` builds.
IMAGE_CLASSIFIER = "image_classifier"


class Identified(NamedTuple):
    """Network identified by the names and shapes of its arrays.

    Attributes:
      architecture: a name that `list_models` returns, or `IMAGE_CLASSIFIER`.
      overrides: keywords of `create_model`.
    """

    architecture: str
    overrides: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Convention:
    """Variable names of another codebase.

    Attributes:
      name: name of the codebase, for messages.
      identify: function that identifies the network; None for arrays of other codebases.
      rules: function that returns the name map of an identified network.
      leaves: array of a module (`kernel`, `bias`, `scale`, `offset`, `mean`, `var`) → its possible
        names, with `{convolution}` and `{norm}` for the scopes.
      norm: scope of a normalization where a rule has none, with `{convolution}`.
      ignored: pattern of names outside of the network → reason for leaving them out.
    """

    name: str
    identify: Callable[[PublishedWeights], Identified | None]
    rules: Callable[[Identified], Sequence[Rule]]
    leaves: Mapping[str, Sequence[str]]
    norm: str = ""
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)


def leaves(
    kernel: Sequence[str],
    bias: Sequence[str],
    norm: str,
    statistics: Sequence[str] = ("weight", "bias", "running_mean", "running_var"),
) -> dict[str, Sequence[str]]:
    """Returns the `leaves` of a convention; by default the statistics of PyTorch's BatchNorm2d."""
    names = zip(("scale", "offset", "mean", "var"), statistics, strict=True)
    return {"kernel": kernel, "bias": bias} | {ours: (norm + theirs,) for ours, theirs in names}


# `state_dict` of a convolution or linear layer, and of a BatchNorm2d.
LEAVES = leaves(["{convolution}.weight"], ["{convolution}.bias"], "{norm}.")
# Preprocessing and padding of PyTorch's classifiers.
PYTORCH = {"stride_placement": "torchvision", "preprocessing": "mean_std"}


def outputs(arrays: Mapping[str, np.ndarray], scope: str) -> int | None:
    """Returns the output channels of a layer of PyTorch, or None if it does not exist."""
    kernel = arrays.get(f"{scope}.weight")
    return None if kernel is None else kernel.shape[0]


# Convolutions of VGG-16 and their positions in torchvision's Sequential of convolutions,
# activations and poolings.
VGG_CONVOLUTIONS = {
    f"conv{block}_{number}": f"features.{first + 2 * (number - 1)}"
    for block, count, first in ((1, 2, 0), (2, 2, 5), (3, 3, 10), (4, 3, 17), (5, 3, 24))
    for number in range(1, count + 1)
}
RESNET_BLOCKS = tuple(f"layer{block}." for block in (1, 2, 3, 4))
RESNET_UNIT = re.compile(r"layer([1-4])\.(\d+)\.(?:conv\d|bn\d|downsample\.[012])\.\w+$")
# ResNets by the number of units in the third block.
RESNET_DEPTHS = {2: "resnet_18", 6: "resnet_50", 23: "resnet_101"}


def resnet_name(arrays: Mapping[str, np.ndarray], prefix: str) -> str | None:
    """Returns the ResNet whose arrays have torchvision's names after a prefix, or None.

    ResNet-34 has as many units as ResNet-50, but without a third convolution. Variants of ResNet
    have additional parts in their units.
    """
    named = [name.removeprefix(prefix) for name in arrays if name.startswith(f"{prefix}layer")]
    units = [unit for unit in map(RESNET_UNIT.match, named) if unit]
    inside = [name for name in named if name.startswith(RESNET_BLOCKS)]
    backbone = RESNET_DEPTHS.get(len({unit[2] for unit in units if unit[1] == "3"}))
    bottleneck = f"{prefix}layer3.0.conv3.weight" in arrays
    known = len(units) == len(inside) and bottleneck == (backbone != "resnet_18")
    return backbone if known else None


def resnet_rules(prefix: str) -> tuple[Rule, ...]:
    """Returns torchvision's name map of a ResNet, which other codebases share."""
    ours, unit = "backbone/block{block}/unit_{unit}", f"{prefix}layer{{block}}.{{unit-1}}"
    return (
        Rule("backbone/stem_1", f"{prefix}conv1", f"{prefix}bn1"),
        Rule(f"{ours}/conv{{n}}", f"{unit}.conv{{n}}", f"{unit}.bn{{n}}"),
        Rule(f"{ours}/shortcut", f"{unit}.downsample.0", f"{unit}.downsample.1"),
    )
