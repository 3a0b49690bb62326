"""Rules that map module paths of this codebase to variable names of another codebase.

The scope of a layer is the common beginning of the names of its variables. For example, the scope
of `layer1.0.conv1.weight` and `layer1.0.conv1.bias` is `layer1.0.conv1`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.weights import PublishedWeights

FIELD = re.compile(r"{(\w+)([+-]\d+)?}")


class Rule(NamedTuple):
    """Maps the paths of some modules to the scopes of their variables in another codebase.

    A placeholder in `ours`, such as `{n}`, matches any text without a slash. In `theirs` and
    `norm`, `{n}` is replaced by this text. If the text is a number, `{n-2}` is replaced by the
    number minus 2.

    Attributes:
      ours: path of a module with a kernel, such as `backbone/layer_{n}/{part}`.
      theirs: scope of kernel and bias.
      norm: scope of the batch normalization; empty: the scope that `Convention.norm` determines.
      moved: number of input channels of the kernel to move from the end to the front, for modules
        whose inputs the other codebase concatenates in another order.
      background: whether to add a background class to a classifier whose single output is the score
        of the foreground. The background gets index 0 and the score 0.
    """

    ours: str
    theirs: str
    norm: str = ""
    moved: int = 0
    background: bool = False


class Scopes(NamedTuple):
    """Scopes of the variables of one module in another codebase.

    Attributes:
      convolution: scope of kernel and bias.
      norm: scope of the batch normalization.
      moved: number of input channels of the kernel to move from the end to the front.
      background: whether to add a background class to a classifier with a single output.
    """

    convolution: str
    norm: str
    moved: int = 0
    background: bool = False


def translate(path: str, rules: Sequence[Rule], default_norm: str = "") -> Scopes | None:
    """Returns the scopes of a module, from the first rule that matches; None if no rule matches.

    Args:
      path: path of a module with a kernel; for a batch normalization, the path of its convolution.
      rules: rules that map module paths to the variable names of the network.
      default_norm: template for the scope of the batch normalization, see `Convention.norm`.
    """
    for rule in rules:
        found = _pattern(rule.ours).fullmatch(path)
        if found:
            convolution = _filled(rule.theirs, found.groupdict())
            norm = _filled(rule.norm, found.groupdict()) or default_norm
            norm = norm.format(convolution=convolution)
            return Scopes(convolution, norm, rule.moved, rule.background)
    return None


@functools.cache
def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(FIELD.sub(r"(?P<\1>[^/]+)", ours))


def _filled(template: str, values: Mapping[str, str]) -> str:
    def value(field: re.Match[str]) -> str:
        name, offset = field.groups()
        return str(int(values[name]) + int(offset)) if offset else values[name]

    return FIELD.sub(value, template)


# Architecture name of image classifiers, which `create_classifier` builds.
IMAGE_CLASSIFIER = "image_classifier"


class Identified(NamedTuple):
    """Network that was identified by the names and shapes of its arrays.

    Attributes:
      architecture: a name that `list_models` returns, or `IMAGE_CLASSIFIER`.
      overrides: keywords of `create_model`, or of `create_classifier` for `IMAGE_CLASSIFIER`.
      class_names: names of the classes; None or empty: unknown.
      if_tensorflow: keywords that replace those in `overrides` if the network has TensorFlow's
        padding. They are given only if the weights do not show the padding, so that `overrides`
        assumes PyTorch's padding.
    """

    architecture: str
    overrides: Mapping[str, Any]
    class_names: tuple[str, ...] | None = None
    if_tensorflow: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Convention:
    """Naming convention of another codebase.

    Attributes:
      name: name of the codebase, for messages.
      identify: function that identifies the network, or returns None if the arrays are not from
        that codebase.
      rules: function that takes an identified network and returns the rules that map module paths
        to the variable names of that codebase.
      leaves: possible names of each variable of a module (`kernel`, `bias`, `scale`, `offset`,
        `mean`, `var`), as templates with the placeholders `{convolution}` and `{norm}`.
      norm: template for the scope of a batch normalization if the rule does not state it; the
        placeholder `{convolution}` stands for the scope of the convolution.
      ignored: {regular expression: reason} for the names of arrays that the network does not use.
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
    """Returns templates for the names of all variables of a module, for `Convention.leaves`.

    Args:
      kernel, bias: templates for the names of kernel and bias.
      norm: template for the common beginning of the names of a batch normalization, with the
        separator, such as `{norm}.`.
      statistics: ends of the names of scale, offset, mean and variance of a batch normalization
        (default: those of BatchNorm2d in PyTorch).
    """
    names = zip(("scale", "offset", "mean", "var"), statistics, strict=True)
    return {"kernel": kernel, "bias": bias} | {ours: (norm + theirs,) for ours, theirs in names}


# Names in the `state_dict` of a convolution, a linear layer and a BatchNorm2d of PyTorch.
LEAVES = leaves(["{convolution}.weight"], ["{convolution}.bias"], "{norm}.")
# ConvNeXt in timm names its layer scale `gamma`.
TIMM_LEAVES = {**LEAVES, "layer_scale": ["{convolution}.gamma"]}
# Padding and preprocessing of classifiers that were trained with PyTorch.
PYTORCH = {"stride_placement": "torchvision", "preprocessing": "mean_std"}

# Preprocessing by mean and standard deviation of pixels in 0..1.
PREPROCESSINGS = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "mean_std",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "minus_one_one",
}


def preprocessing_of(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Returns the keyword `preprocessing` of `create_classifier` for a classifier of timm.

    Args:
      configuration: content of the `config.json` beside the weights. If it does not state the
        normalization of the images, the result is {}.

    Raises:
      DeepLabError: the normalization of the images is not supported.
    """
    published = configuration.get("pretrained_cfg")
    if not isinstance(published, Mapping) or not {"mean", "std"} <= published.keys():
        return {}
    mean, std = published["mean"], published["std"]
    for numbers, preprocessing in PREPROCESSINGS.items():
        if [mean, std] == [list(values) for values in numbers]:
            return {"preprocessing": preprocessing}
    raise DeepLabError(
        f"the network requires images normalized by mean {mean} and standard deviation {std}, "
        "which is not supported; supported pairs (mean, standard deviation): "
        f"{' or '.join(map(str, PREPROCESSINGS))}"
    )


def outputs(arrays: Mapping[str, np.ndarray], scope: str) -> int | None:
    """Returns the number of output channels of a PyTorch layer; None if there is no such layer."""
    kernel = arrays.get(f"{scope}.weight")
    return None if kernel is None else kernel.shape[0]


def names_of_single_output(count: int) -> tuple[str, ...]:
    """Returns the class names of a network with a single output, the score of the foreground.

    Args:
      count: number of outputs of the network. If it is not 1, the result is empty.
    """
    return ("background", "foreground") if count == 1 else ()


# Layers of a unit: names of kernel and normalization, relative to the scope of the unit.
Layers = Mapping[str, tuple[str, str]]
# Names of squeeze and excitation in the units of EfficientNets and MobileNets of timm.
TIMM_GATE = ("se.conv_reduce", "se.conv_expand")


def unit_rules(ours: str, theirs: str, layers: Layers, gate: tuple[str, str]) -> tuple[Rule, ...]:
    """Returns the rules for a residual unit that may have squeeze and excitation.

    Args:
      ours: path of the unit in this codebase.
      theirs: scope of the unit in the other codebase.
      layers: {name of a convolution in this codebase: (name of the convolution, name of its
        normalization) in the other codebase}.
      gate: names of the two convolutions of squeeze and excitation in the other codebase.
    """
    squeeze, excite = gate
    return (
        *(
            Rule(f"{ours}/{layer}", f"{theirs}.{kernel}", f"{theirs}.{norm}")
            for layer, (kernel, norm) in layers.items()
        ),
        Rule(f"{ours}/squeeze_excitation/squeeze", f"{theirs}.{squeeze}"),
        Rule(f"{ours}/squeeze_excitation/excite", f"{theirs}.{excite}"),
    )


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
    """Identifies a ResNet whose arrays have torchvision's names after a prefix.

    The number of units in the third block determines the depth. ResNet-34, which has as many units
    as ResNet-50, is not identified. Variants with additional layers in their units are not
    identified, either.

    Returns:
      Name of the backbone, or None.
    """
    named = [name.removeprefix(prefix) for name in arrays if name.startswith(f"{prefix}layer")]
    units = [unit for unit in map(RESNET_UNIT.match, named) if unit]
    inside = [name for name in named if name.startswith(RESNET_BLOCKS)]
    backbone = RESNET_DEPTHS.get(len({unit[2] for unit in units if unit[1] == "3"}))
    bottleneck = f"{prefix}layer3.0.conv3.weight" in arrays
    known = len(units) == len(inside) and bottleneck == (backbone != "resnet_18")
    return backbone if known else None


def resnet_rules(prefix: str) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of a ResNet to torchvision's variable names.

    Args:
      prefix: text before all names of the ResNet, for other codebases with torchvision's names.
    """
    ours, unit = "backbone/block{block}/unit_{unit}", f"{prefix}layer{{block}}.{{unit-1}}"
    return (
        Rule("backbone/stem_1", f"{prefix}conv1", f"{prefix}bn1"),
        Rule(f"{ours}/conv{{n}}", f"{unit}.conv{{n}}", f"{unit}.bn{{n}}"),
        Rule(f"{ours}/shortcut", f"{unit}.downsample.0", f"{unit}.downsample.1"),
    )
