"""Starting from the variables of another model."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from deeplab_jax import model_store
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.atrous_branches import at_rates_of
from deeplab_jax.training.decimation import decimated, is_fully_connected
from deeplab_jax.training.state import Variables

CLASSIFIER, BACKBONE = "classifier", "backbone"
# What of another model is taken: all but a classifier of another shape; the backbone; what fits;
# the backbone, and fc6 and fc7 as DeepLab v1 cuts them out of VGG-16's.
PARTS = ("all", "backbone", "matching", "decimated")
# What variables were trained under that shapes do not tell; the last does not concern backbones.
CONVENTIONS = ("preprocessing", "stride_placement", "align_corners")
Path = tuple[str, ...]


class Initialization(NamedTuple):
    """Variables to start from.

    Attributes:
      variables: of the model to train.
      folded: paths of the normalisations among them that were folded into their convolutions when
        the model was published, without `params`.
    """

    variables: Variables
    folded: frozenset[Path]


def initialize_from(
    fresh: Variables, source: pathlib.Path, reporter: Reporter, parts: str = "all"
) -> Initialization:
    """Returns the variables of another model, and fresh ones where it has none of their shape.

    Args:
      fresh: freshly initialised variables of the model to train; tells names and shapes.
      source: a workdir or model directory.
      reporter: hears which parts start afresh.
      parts: `all`: everything must fit but the classifier; `backbone`: that alone, all of it;
        `matching`: whatever fits in name and shape; `decimated`: the backbone, fc6 and fc7, these
        by `decimated`.

    Raises:
      DeepLabError: what must fit is missing or of another shape.
    """
    if parts not in PARTS:
        raise unknown_name("training.init_parts", parts, PARTS)
    description = model_store.read_description(source)
    wanted = traverse_util.flatten_dict(fresh)
    given = traverse_util.flatten_dict(model_store.read_variables(source))
    given = decimated(given, wanted) if parts == "decimated" else at_rates_of(given, wanted)
    fitting = _fitting(given, wanted)
    if parts == "backbone":
        fitting = {path for path in fitting if path[1] == BACKBONE}
    _check(wanted, fitting, parts, source)
    for line in _started_afresh(given, wanted, fitting, source, whole=parts == "all"):
        reporter.message(line)
    taken = {path: given[path] if path in fitting else array for path, array in wanted.items()}
    names = description.source.get("folded_batch_norm", ())
    folded = at_rates_of({("params", *name.split("/"), "scale"): None for name in names}, wanted)
    kept = {path[1:-1] for path in folded if path in fitting}
    return Initialization(traverse_util.unflatten_dict(taken), frozenset(kept))


def warn_of_conventions(
    architecture: Architecture, source: pathlib.Path, reporter: Reporter, parts: str = "all"
) -> None:
    """Warns where another model's variables were trained under other conventions.

    Args:
      architecture: of the model to train.
      source: a workdir or model directory.
      reporter: hears of each, and which field would make them the same.
      parts: see `initialize_from`; a backbone does not resize.
    """
    description = model_store.read_description(source)
    given = description.create_model().architecture
    resizes = parts != BACKBONE and description.task != model_store.CLASSIFICATION
    for name in CONVENTIONS if resizes else CONVENTIONS[:-1]:
        theirs, ours = getattr(given, name), getattr(architecture, name)
        # Of networks without it, as stride placement is of ResNets, it is None.
        if theirs != ours and None not in (theirs, ours):
            reporter.warning(
                f"{source} was trained with {name}={theirs}, this network has {ours}: what is "
                f"taken may not fit; --config.model.{name}={theirs} makes them the same"
            )


def _fitting(given: Mapping[Path, np.ndarray], wanted: Mapping[Path, np.ndarray]) -> set[Path]:
    """Returns what can be taken: a convolution with its bias and normalisation, or none of them."""
    unfit = {
        _unit(path)
        for path, array in wanted.items()
        if path not in given or given[path].shape != array.shape
    }
    return {path for path in wanted if _unit(path) not in unfit}


def _unit(path: Path) -> Path:
    _, *module, _ = path
    return tuple(module[:-1] if module[-1] == "norm" else module)


def _check(
    wanted: Mapping[Path, Any], fitting: set[Path], parts: str, source: pathlib.Path
) -> None:
    needed = {
        "all": [path for path in wanted if CLASSIFIER not in path],
        "backbone": [path for path in wanted if path[1] == BACKBONE],
        "matching": [],
        "decimated": [path for path in wanted if path[1] == BACKBONE or is_fully_connected(path)],
    }[parts]
    foreign = ["/".join(path) for path in needed if path not in fitting]
    if foreign:
        raise DeepLabError(
            f"training.init_from={source} holds another network: {len(foreign)} arrays are missing "
            f"or of another shape, the first {foreign[0]}; give config.model the architecture that "
            "it was trained with, or training.init_parts=backbone or matching"
        )
    if not fitting:
        raise DeepLabError(f"nothing of training.init_from={source} fits this network")


def _started_afresh(
    given: Mapping[Path, np.ndarray],
    wanted: Mapping[Path, np.ndarray],
    fitting: set[Path],
    source: pathlib.Path,
    whole: bool,
) -> list[str]:
    """Returns what to say of the arrays that were not taken: each, or the parts of the network."""
    afresh = [path for path in wanted if path not in fitting]
    if not whole:
        names = list(dict.fromkeys(path[1] for path in afresh))
        shown = ", ".join(names) or "nothing"
        return [f"{len(fitting)} arrays come from {source}; what starts afresh lies in: {shown}"]
    lines = []
    for path in afresh:
        there = "nothing" if path not in given else list(given[path].shape)
        here = list(wanted[path].shape)
        lines.append(f"{'/'.join(path)} starts afresh: {there} in {source}, {here} here")
    return lines
