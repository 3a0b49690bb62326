"""Assignment of the arrays of a weights file to the variables of a network."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_jax.pretrained.name_maps import Convention, Rule, Scopes, translate
from deeplab_jax.pretrained.weights import PublishedWeights


def to_our_layout(array: np.ndarray, layout: str, wanted: tuple[int, ...]) -> np.ndarray:
    """Converts a kernel from the layout of a file to the layout of Flax, without checking shapes.

    If `wanted` is not the shape of a convolution kernel, the array is returned unchanged.

    Args:
      array: array of the file.
      layout: `tensorflow`: [rows, columns, in, out], or depthwise [rows, columns, channels, 1];
        `pytorch`: [out, in, rows, columns], or [out, in · rows · columns] for a linear layer.
      wanted: shape of the variable in Flax; for a depthwise kernel, [rows, columns, 1, channels].
    """
    if len(wanted) != 4:
        return array
    rows, columns = wanted[:2]
    if layout == "pytorch":
        if array.ndim == 2 and array.shape[1] % (rows * columns) == 0:
            array = array.reshape(array.shape[0], -1, rows, columns)
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if array.ndim == 4 and array.shape[3] == 1 and wanted[2] == 1:
        return array.transpose(0, 1, 3, 2)
    return array


Path = tuple[str, ...]
# Variables of a batch normalization, and their names in `Convention.leaves`.
NORM_LEAVES = {"scale": "scale", "bias": "offset", "mean": "mean", "var": "var"}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Variables that a network requires.

    Attributes:
      shapes: shape of each variable by its path, which starts with `params` or `batch_stats`.
      epsilons: epsilon of each batch normalization by the path of its module.
    """

    shapes: Mapping[Path, tuple[int, ...]]
    epsilons: Mapping[Path, float]


@dataclasses.dataclass
class Assignment:
    """Assignment of arrays to the variables of a network.

    Attributes:
      arrays: float32 values of variables, by path of the variable.
      sources: name in the file of the array that matches a variable, even if its shape is wrong,
        by path of the variable. The bias of a convolution that is subtracted from the mean of a
        batch normalization has the path of the batch normalization and `convolution_bias`.
      folded: paths of batch normalizations that only add a bias, because the file stores them
        folded into convolutions.
      missing: reason why no array matches a variable, by path of the variable.
      mismatched: messages about arrays that have the wrong shape or that two variables require.
      unused: reason why no variable uses an array, by name of the array in the file.
    """

    arrays: dict[Path, np.ndarray] = dataclasses.field(default_factory=dict)
    sources: dict[Path, str] = dataclasses.field(default_factory=dict)
    folded: set[str] = dataclasses.field(default_factory=set)
    missing: dict[Path, str] = dataclasses.field(default_factory=dict)
    mismatched: list[str] = dataclasses.field(default_factory=list)
    unused: dict[str, str] = dataclasses.field(default_factory=dict)


def assign(
    wanted: Wanted, weights: PublishedWeights, convention: Convention, rules: Sequence[Rule]
) -> Assignment:
    """Assigns the arrays of a file to the variables of a network; records arrays that do not fit.

    Args:
      wanted: variables of the network.
      weights: arrays of the file.
      convention: naming convention of the file.
      rules: rules that map module paths of the network to names in the file.
    """
    assigner = _Assigner(wanted, weights, convention)
    for path in wanted.shapes:
        assigner.assign(path, rules)
    assigner.shift_means()
    result = assigner.result
    used = set(result.sources.values())
    left = [name for name in map(assigner.stored, weights.arrays) if name not in used]
    result.unused = {name: _reason(name, convention) for name in left} | dict(weights.ignored)
    return result


def _reason(name: str, convention: Convention) -> str:
    reasons = (why for pattern, why in convention.ignored.items() if re.search(pattern, name))
    return next(reasons, "no part of the network uses it")


class _Assigner:
    """Builds an `Assignment`, one variable at a time."""

    def __init__(self, wanted: Wanted, weights: PublishedWeights, convention: Convention) -> None:
        self.wanted, self.weights, self.convention = wanted, weights, convention
        self.result = Assignment()
        # Name of the bias of the convolution before a batch normalization, by path of its mean.
        self._biases: dict[Path, str] = {}

    def assign(self, path: Path, rules: Sequence[Rule]) -> None:
        """Assigns an array to the variable at `path`, or records why no array matches it."""
        _, *module, leaf = path
        is_norm = module[-1] == "norm"
        scopes = translate(
            "/".join(module[:-1] if is_norm else module), rules, self.convention.norm
        )
        if scopes is None:
            self.result.missing[path] = f"no network of {self.convention.name} has this part"
            return
        names = self._names(NORM_LEAVES[leaf] if is_norm else leaf, scopes)
        biases = self._names("bias", scopes) if is_norm else []
        found, bias = (
            next(filter(self.weights.arrays.__contains__, group), None) for group in (names, biases)
        )
        if found is not None:
            self._take(path, found, scopes.moved, scopes.background)
            if leaf == "mean" and bias is not None:
                self._biases[path] = bias
        elif bias is not None:
            self._take_folded(path, bias)
        else:
            self.result.missing[path] = f"the file has no {' or '.join(names)}"

    def shift_means(self) -> None:
        """Subtracts the biases of convolutions from the means of batch normalizations after them.

        Convolutions before a batch normalization have no bias in our networks. The shifted mean has
        exactly the effect of the bias. The function is called when all variables are assigned.
        """
        for path, bias in self._biases.items():
            stored, values = self.stored(bias), self.weights.arrays[bias]
            mean = self.result.arrays.get(path)
            if mean is None or stored in self.result.sources.values() or values.size != mean.size:
                continue
            shifted = mean - values.reshape(mean.shape)
            self.result.arrays[path] = shifted.astype(np.float32)
            self.result.sources[*path[:-1], "convolution_bias"] = stored

    def stored(self, name: str) -> str:
        """Returns the name that an array has in the file.

        If a moving average in a TensorFlow checkpoint was read instead of the variable `name`, the
        result is the name of the moving average.

        Args:
          name: name of the array in `PublishedWeights.arrays`.
        """
        return self.weights.stored.get(name, name)

    def _names(self, leaf: str, scopes: Scopes) -> list[str]:
        templates = self.convention.leaves[leaf]
        return [template.format(**scopes._asdict()) for template in templates]

    def _take(self, path: Path, name: str, moved: int = 0, background: bool = False) -> None:
        stored, shape, result = self.stored(name), self.wanted.shapes[path], self.result
        ours, theirs = "/".join(path), self.weights.arrays[name]
        if stored in result.sources.values():
            result.mismatched.append(f"{ours} needs {stored}, which another variable uses")
            return
        result.sources[path] = stored
        array = to_our_layout(theirs, self.weights.layout, shape)
        if moved and array.ndim == 4:
            # The input channels of a depthwise kernel are its last axis.
            array = np.roll(array, moved, axis=3 if array.shape[2] == 1 else 2)
        if background and (array.shape[-1], shape[-1]) == (1, 2):
            array = np.concatenate([np.zeros_like(array), array], axis=-1)
        if array.shape == shape:
            result.arrays[path] = np.ascontiguousarray(array, np.float32)
        else:
            result.mismatched.append(
                f"{stored} has the shape {list(theirs.shape)}, but {ours} requires {list(shape)}"
            )

    def _take_folded(self, path: Path, bias: str) -> None:
        """Sets one variable of a batch normalization that the file stores folded.

        The variable `bias` is set to the bias of the convolution. The scale, mean and variance are
        set to values with which the batch normalization only adds this bias.

        Args:
          path: path of the variable.
          bias: name in `PublishedWeights.arrays` of the bias of the convolution.
        """
        _, *module, leaf = path
        if leaf == "bias":
            self._take(path, bias)
            self.result.folded.add("/".join(module))
            return
        # The sum of variance and epsilon must be 1.
        epsilon = self.wanted.epsilons.get(tuple(module), 0.0)
        value = {"scale": 1.0, "mean": 0.0, "var": 1 - epsilon}[leaf]
        self.result.arrays[path] = np.full(self.wanted.shapes[path], value, np.float32)
