"""Assigns each array of a file to a variable of a network, with the right axes."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_jax.pretrained.name_maps import Convention, Rule, Scopes, translate
from deeplab_jax.pretrained.weights import PublishedWeights

LAYOUTS = ("tensorflow", "pytorch")


def to_our_layout(array: np.ndarray, layout: str, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns an array with its axes in our order; its shape may still not be the wanted one.

    Args:
      array: as in the file.
      layout: `tensorflow`: [rows, columns, in, out], depthwise [rows, columns, channels, 1];
        `pytorch`: [out, in, rows, columns], or [out, in · rows · columns] of a linear layer.
      wanted: shape of ours; a depthwise kernel is [rows, columns, 1, channels].
    """
    if len(wanted) != 4:
        return array
    if layout == "pytorch":
        if array.ndim == 2:
            array = _unflattened(array, wanted)
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if array.ndim == 4 and array.shape[3] == 1 and wanted[2] == 1:
        return array.transpose(0, 1, 3, 2)
    return array


def _unflattened(array: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns a linear layer [out, in · rows · columns] as a convolution's kernel, if it fits."""
    rows, columns = wanted[:2]
    if array.shape[1] % (rows * columns):
        return array
    return array.reshape(array.shape[0], -1, rows, columns)


Path = tuple[str, ...]
# A normalisation's variables here, by the leaf that conventions name.
NORM_LEAVES = {"scale": "scale", "bias": "offset", "mean": "mean", "var": "var"}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The variables that a network needs.

    Attributes:
      shapes: by path, `params` or `batch_stats` first.
      epsilons: of every normalisation, by the path of its module.
    """

    shapes: Mapping[Path, tuple[int, ...]]
    epsilons: Mapping[Path, float]


@dataclasses.dataclass
class Assignment:
    """Which array went where.

    Attributes:
      arrays: by our path; float32.
      sources: name in the file, by our path.
      folded: normalisations that became the identity, as the file has them within convolutions.
      missing: our paths that the file has nothing for, with why.
      mismatched: arrays of another shape, in words.
      unused: names in the file that nothing here asked for, with why.
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
    """Returns the network's arrays out of the file's; nothing is broadcast or skipped silently.

    Args:
      wanted: what the network needs.
      weights: what the reader found.
      convention: of the names in the file.
      rules: of its name map for this network.
    """
    result = Assignment()
    for path, shape in wanted.shapes.items():
        module, leaf = _module_and_leaf(path)
        scopes = translate(module, rules, convention.norm)
        if scopes is None:
            result.missing[path] = f"{convention.name} has no such part"
            continue
        names = _names(convention, leaf, scopes)
        found = next((name for name in names if name in weights.arrays), None)
        if found is not None:
            _take(result, path, shape, found, weights, scopes.moved)
        elif not _take_folded(result, path, shape, scopes, wanted, weights, convention):
            result.missing[path] = f"looked for {' or '.join(names)}"
    result.unused = _unused(result, weights, convention)
    return result


def _module_and_leaf(path: Path) -> tuple[str, str]:
    """Returns the path of the convolution and what conventions call the variable."""
    _, *module, leaf = path
    if module[-1] == "norm":
        return "/".join(module[:-1]), NORM_LEAVES[leaf]
    return "/".join(module), leaf


def _names(convention: Convention, leaf: str, scopes: Scopes) -> list[str]:
    templates = convention.leaves[leaf]
    return [template.format(**scopes._asdict()) for template in templates]


def _take(
    result: Assignment,
    path: Path,
    shape: tuple[int, ...],
    name: str,
    weights: PublishedWeights,
    moved: int = 0,
) -> None:
    stored = weights.stored.get(name, name)
    if stored in result.sources.values():
        result.mismatched.append(f"{stored} is wanted twice, by {'/'.join(path)} too")
        return
    result.sources[path] = stored
    array = to_our_layout(weights.arrays[name], weights.layout, shape)
    if moved and array.ndim == 4:
        array = np.roll(array, moved, axis=2)
    if array.shape == shape:
        result.arrays[path] = np.ascontiguousarray(array, np.float32)
    else:
        there = list(weights.arrays[name].shape)
        result.mismatched.append(f"{stored} is {there}, but {'/'.join(path)} is {list(shape)} here")


def _take_folded(
    result: Assignment,
    path: Path,
    shape: tuple[int, ...],
    scopes: Scopes,
    wanted: Wanted,
    weights: PublishedWeights,
    convention: Convention,
) -> bool:
    """Makes a normalisation the identity plus the bias of the convolution it was folded into.

    Returns whether the file has it folded.
    """
    _, *module, leaf = path
    biases = [name for name in _names(convention, "bias", scopes) if name in weights.arrays]
    if module[-1] != "norm" or not biases:
        return False
    if leaf == "bias":
        _take(result, path, shape, biases[0], weights)
        result.folded.add("/".join(module))
        return True
    # The variance and the constant that is added to it make 1.
    values = {"scale": 1.0, "mean": 0.0, "var": 1 - wanted.epsilons.get(tuple(module), 0.0)}
    result.arrays[path] = np.full(shape, values[leaf], np.float32)
    return True


def _unused(
    result: Assignment, weights: PublishedWeights, convention: Convention
) -> dict[str, str]:
    used = set(result.sources.values())
    names = [weights.stored.get(name, name) for name in weights.arrays]
    left = [name for name in names if name not in used]
    return {name: _reason(name, convention) for name in left} | dict(weights.ignored)


def _reason(name: str, convention: Convention) -> str:
    for pattern, reason in convention.ignored.items():
        if re.search(pattern, name):
            return reason
    return "no part of the network asks for it"
