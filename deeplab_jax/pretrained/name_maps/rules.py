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
    """Where the arrays of some of our modules are found.

    `{n}` in `ours` stands for anything without a slash; in the others for the same, and `{n-2}`
    for a number less by 2.

    Attributes:
      ours: path of a module with a kernel, as in `backbone/layer_{n}/{part}`.
      theirs: scope of the kernel and bias.
      norm: scope of the batch normalisation; empty where the convention derives it.
      moved: how many of the kernel's last input channels are the first ones here, where maps are
        joined in another order.
    """

    ours: str
    theirs: str
    norm: str = ""
    moved: int = 0


class Scopes(NamedTuple):
    """Scopes of one module's arrays: of kernel and bias, and of its normalisation.

    `moved` is as in the rule.
    """

    convolution: str
    norm: str
    moved: int = 0


def translate(path: str, rules: Sequence[Rule], default_norm: str = "") -> Scopes | None:
    """Returns the scopes of our module, by the first rule that fits; None without one.

    Args:
      path: of the module, without `norm`.
      rules: of the map.
      default_norm: template of the normalisation's scope, with `{convolution}`.
    """
    for rule in rules:
        found = _pattern(rule.ours).fullmatch(path)
        if found:
            convolution = _filled(rule.theirs, found.groupdict())
            norm = _filled(rule.norm, found.groupdict())
            norm = norm or default_norm.format(convolution=convolution)
            return Scopes(convolution, norm, rule.moved)
    return None


@functools.cache
def _pattern(ours: str) -> re.Pattern[str]:
    literal = FIELD.split(ours)
    # split gives text, field and offset in turn.
    pieces = [re.escape(text) for text in literal[::3]]
    fields = [f"(?P<{name}>[^/]+)" for name in literal[1::3]]
    return re.compile("".join(a + b for a, b in zip(pieces, [*fields, ""], strict=True)))


def _filled(template: str, values: Mapping[str, str]) -> str:
    def value(field: re.Match[str]) -> str:
        name, offset = field.groups()
        return str(int(values[name]) + int(offset)) if offset else values[name]

    return FIELD.sub(value, template)


# The architecture of a classifier of whole images, which `create_classifier` makes.
IMAGE_CLASSIFIER = "image_classifier"


class Identified(NamedTuple):
    """A network recognised by the names and shapes of its arrays.

    Attributes:
      architecture: a name that `list_models` returns, or `IMAGE_CLASSIFIER`.
      overrides: keywords that `create_model` takes.
    """

    architecture: str
    overrides: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Convention:
    """The names of another code.

    Attributes:
      name: of the code, for messages.
      identify: identifies the network; None where the arrays are not of this code.
      rules: gives the name map of a network that `identify` told.
      leaves: our array of a module (`kernel`, `bias`, `scale`, `offset`, `mean`, `var`) → names it
        may go by, with `{convolution}` and `{norm}` for the scopes.
      norm: scope of a normalisation where a rule does not tell, with `{convolution}`.
      ignored: pattern of names that belong to no network → why they are left out.
    """

    name: str
    identify: Callable[[PublishedWeights], Identified | None]
    rules: Callable[[Identified], Sequence[Rule]]
    leaves: Mapping[str, Sequence[str]]
    norm: str = ""
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)


# `state_dict` of a convolution or linear layer, and of a BatchNorm2d.
LEAVES = {
    "kernel": ("{convolution}.weight",),
    "bias": ("{convolution}.bias",),
    "scale": ("{norm}.weight",),
    "offset": ("{norm}.bias",),
    "mean": ("{norm}.running_mean",),
    "var": ("{norm}.running_var",),
}
# VGG-16's convolutions and their places in torchvision's Sequential of convolutions, activations
# and poolings.
VGG_CONVOLUTIONS = {
    f"conv{block}_{number}": f"features.{first + 2 * (number - 1)}"
    for block, count, first in ((1, 2, 0), (2, 2, 5), (3, 3, 10), (4, 3, 17), (5, 3, 24))
    for number in range(1, count + 1)
}
RESNET_BLOCKS = tuple(f"layer{block}." for block in (1, 2, 3, 4))
RESNET_UNIT = re.compile(r"layer([1-4])\.(\d+)\.(?:conv\d|bn\d|downsample\.[012])\.\w+$")
# Depth of a ResNet by the units of its third block.
RESNET_DEPTHS = {2: "resnet_18", 6: "resnet_50", 23: "resnet_101"}


def resnet_name(arrays: Mapping[str, np.ndarray], prefix: str) -> str | None:
    """Returns which ResNet's arrays have torchvision's names after a prefix; None if none known.

    ResNet-34 has as many units as ResNet-50, but no third convolution in them. Relatives of ResNet
    have further parts in their units.
    """
    named = [name.removeprefix(prefix) for name in arrays if name.startswith(f"{prefix}layer")]
    units = [unit for unit in map(RESNET_UNIT.match, named) if unit]
    inside = [name for name in named if name.startswith(RESNET_BLOCKS)]
    backbone = RESNET_DEPTHS.get(len({unit[2] for unit in units if unit[1] == "3"}))
    bottleneck = f"{prefix}layer3.0.conv3.weight" in arrays
    known = len(units) == len(inside) and bottleneck == (backbone != "resnet_18")
    return backbone if known else None


def resnet_rules(prefix: str) -> tuple[Rule, ...]:
    """Returns torchvision's name map of a ResNet, which other codes took over."""
    unit = f"{prefix}layer{{block}}.{{unit-1}}"
    return (
        Rule("backbone/stem_1", f"{prefix}conv1", f"{prefix}bn1"),
        Rule("backbone/block{block}/unit_{unit}/conv{n}", f"{unit}.conv{{n}}", f"{unit}.bn{{n}}"),
        Rule(
            "backbone/block{block}/unit_{unit}/shortcut",
            f"{unit}.downsample.0",
            f"{unit}.downsample.1",
        ),
    )
