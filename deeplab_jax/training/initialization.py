"""Initial variables of a run: random, from another model, or from a checkpoint."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from deeplab_jax import checkpointing
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models import Architecture
from deeplab_jax.models.output_stride import rename_branches_to_match
from deeplab_jax.parallel import place, state_shardings
from deeplab_jax.pretrained import locate
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.setup import Run, run_batches
from deeplab_jax.training.state import (
    TrainState,
    Variables,
    with_variables,
)
from deeplab_jax.training.unfolding import BATCHES, unfold_batch_norm

Path = tuple[str, ...]
# Paths of the fully connected layers in a converted VGG-16.
SOURCE = ("params", "large_fov")
FULLY_CONNECTED = ("fc6", "fc7")


def decimated(
    given: Mapping[Path, np.ndarray], wanted: Mapping[Path, Any], seed: int = 0
) -> dict[Path, np.ndarray]:
    """Returns arrays whose fc6 and fc7 are subsampled from those of VGG-16.

    Kernels keep evenly spaced rows and columns, including the corners (every third for 3×3 out of
    7×7). Narrower layers keep randomly drawn filters, and fc7 keeps the inputs that match the
    filters of fc6. All branches of ASPP start from the same values.

    Args:
      given: arrays of VGG-16 by path.
      wanted: arrays of the network to train by path, for their shapes.
      seed: seed of the draw.

    Raises:
      DeepLabError: `given` has no fc6 and fc7, or smaller ones.

    Source: DeepLab v1, section 3.2; it does not state which rows, columns and filters.
    """
    cut = {path: array for path, array in given.items() if path[:2] != SOURCE}
    for path, array in wanted.items():
        if is_fully_connected(path):
            source = (*SOURCE, *path[-2:])
            if source not in given:
                raise DeepLabError(f"there is no VGG-16 to decimate: {'/'.join(source)} is missing")
            cut[path] = _cut(given[source], array.shape, path[-2], seed)
    return cut


def is_fully_connected(path: Path) -> bool:
    """Returns whether an array belongs to fc6 or fc7."""
    return len(path) > 3 and path[-2] in FULLY_CONNECTED


def _cut(array: np.ndarray, shape: tuple[int, ...], layer: str, seed: int) -> np.ndarray:
    if len(shape) != array.ndim or np.any(np.array(shape) > array.shape):
        raise DeepLabError(
            f"{layer} of shape {list(shape)} cannot be cut out of {list(array.shape)}; give "
            "model.fov, model.fc_channels or training.init_scope=backbone"
        )
    for axis, (size, kept) in enumerate(zip(array.shape, shape, strict=True)):
        array = np.take(array, _positions(size, kept, axis, array.ndim, layer, seed), axis)
    return array


def _positions(size: int, kept: int, axis: int, num_axes: int, layer: str, seed: int) -> np.ndarray:
    """Returns the kept positions along an axis."""
    if axis < num_axes - 2:
        return np.rint(np.linspace(0, size - 1, kept)).astype(int)
    number = FULLY_CONNECTED.index(layer)
    # The inputs of a layer are the filters that the previous layer keeps.
    drawn_by = number if axis == num_axes - 1 else number - 1
    random = np.random.default_rng((seed, drawn_by + 1))
    return np.sort(random.permutation(size)[:kept])


CLASSIFIER, BACKBONE = "classifier", "backbone"
# Scopes of variables that are loaded: all but a classifier of another shape; the backbone; all
# that fit; the backbone, and fc6 and fc7 as DeepLab v1 cuts them out of VGG-16's.
PARTS = ("all", "backbone", "matching", "vgg_decimated")
# Conventions of trained variables that shapes do not show; the last does not concern backbones.
CONVENTIONS = ("preprocessing", "stride_placement", "align_corners")


class Initialization(NamedTuple):
    """Variables to start from.

    Attributes:
      variables: variables of the model to train.
      folded: paths, without `params`, of the batch normalizations that the published model had
        folded into convolutions.
    """

    variables: Variables
    folded: frozenset[Path]


def initialize_from(
    fresh: Variables, source: pathlib.Path, reporter: Reporter, parts: str = "all"
) -> Initialization:
    """Returns the variables of another model, and fresh ones where it has none of that shape.

    Args:
      fresh: freshly initialized variables of the model to train.
      source: workdir or model directory.
      reporter: receives a message about the parts that start from fresh values.
      parts: variables to load. `all`: all must match, except the classifier; `backbone`: the
        backbone, all of which must match; `matching`: those that match in name and shape;
        `vgg_decimated`: the backbone, and fc6 and fc7 by `decimated`.

    Raises:
      DeepLabError: a variable that must match is missing or has another shape.
    """
    if parts not in PARTS:
        raise unknown_name("training.init_scope", parts, PARTS)
    description = checkpointing.read_description(source)
    wanted = traverse_util.flatten_dict(fresh)
    given = traverse_util.flatten_dict(checkpointing.read_variables(source))
    given = (
        decimated(given, wanted)
        if parts == "vgg_decimated"
        else rename_branches_to_match(given, wanted)
    )
    fitting = _fitting(given, wanted)
    if parts == "backbone":
        fitting = {path for path in fitting if path[1] == BACKBONE}
    _check(wanted, fitting, parts, source)
    for line in _started_afresh(given, wanted, fitting, source, whole=parts == "all"):
        reporter.message(line)
    taken = {path: given[path] if path in fitting else array for path, array in wanted.items()}
    names = description.source.get("folded_batch_norm", ())
    folded = rename_branches_to_match(
        {("params", *name.split("/"), "scale"): None for name in names}, wanted
    )
    kept = {path[1:-1] for path in folded if path in fitting}
    return Initialization(traverse_util.unflatten_dict(taken), frozenset(kept))


def warn_of_conventions(
    architecture: Architecture, source: pathlib.Path, reporter: Reporter, parts: str = "all"
) -> None:
    """Warns of conventions that differ between another model and the model to train.

    Args:
      architecture: architecture of the model to train.
      source: workdir or model directory of the other model.
      reporter: receives one warning per convention, with the config field that sets it.
      parts: see `initialize_from`; the convention of resizing does not concern a backbone.
    """
    description = checkpointing.read_description(source)
    given = description.create_model().architecture
    resizes = parts != BACKBONE and description.task != checkpointing.CLASSIFICATION
    for name in CONVENTIONS if resizes else CONVENTIONS[:-1]:
        theirs, ours = getattr(given, name), getattr(architecture, name)
        # It is None for networks without it; stride placement, for example, exists only in ResNets.
        if theirs != ours and None not in (theirs, ours):
            reporter.warning(
                f"{source} was trained with {name}={theirs}, this network has {ours}: what is "
                f"taken may not fit; --config.model.{name}={theirs} makes them the same"
            )


def _fitting(given: Mapping[Path, np.ndarray], wanted: Mapping[Path, np.ndarray]) -> set[Path]:
    """Returns the paths to load: a convolution with its bias and normalization, or none of them."""
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
        "vgg_decimated": [
            path for path in wanted if path[1] == BACKBONE or is_fully_connected(path)
        ],
    }[parts]
    foreign = ["/".join(path) for path in needed if path not in fitting]
    if foreign:
        raise DeepLabError(
            f"training.init_from={source} holds another network: {len(foreign)} arrays are missing "
            f"or of another shape, the first {foreign[0]}; give config.model the architecture that "
            "it was trained with, or training.init_scope=backbone or matching"
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
    """Returns the names of the arrays, or parts of the network, that start from fresh values."""
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


def initial_state(run: Run, checkpointer: Checkpointer, reporter: Reporter) -> TrainState:
    """Returns the initial state: resumed, from another model, or fresh."""
    spec, seed = run.state_spec, run.config.seed
    if checkpointer.latest_step is not None:
        state = checkpointer.restore(spec.abstract())
        reporter.message(f"going on from step {int(state.step)} of {run.workdir}")
        return state
    if not run.config.training.init_from:
        return spec.create(seed)
    # Replicated at first: every process reads all values.
    fresh = dataclasses.replace(spec, fsdp=False).create(seed).variables
    variables = jax.tree.map(np.asarray, _other_variables(run, fresh, reporter))
    state = with_variables(jax.tree.map(jnp.asarray, variables), run.optimizer, spec.keep_ema)
    return place(state, state_shardings(state, run.mesh, fsdp=spec.fsdp))


def _other_variables(run: Run, fresh: Variables, reporter: Reporter) -> Variables:
    """Returns the variables of `training.init_from`, with batch normalization unfolded."""
    training = run.config.training
    source = locate(training.init_from, reporter)
    start = initialize_from(fresh, source, reporter, training.init_scope)
    warn_of_conventions(run.model.architecture, source, reporter, training.init_scope)
    if not start.folded or run.model.architecture.frozen_batch_norm:
        return start.variables
    reporter.message(
        f"{len(start.folded)} batch normalizations were folded away: their statistics are "
        f"measured on {BATCHES} batches"
    )
    batches = itertools.islice(run_batches(run, first=0), BATCHES)
    images = (batch["image"] for batch in batches)
    return unfold_batch_norm(run.model, start.variables, start.folded, images, run.mesh)
