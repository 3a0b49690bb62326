"""Initial training state: random, from another model, or from a checkpoint."""

import dataclasses
import itertools
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from deeplab_jax import checkpointing
from deeplab_jax.config_fields import INIT_SCOPES, NOT_IN_CONFIG
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.models import Architecture
from deeplab_jax.models.output_stride import rename_branches_to_match
from deeplab_jax.models.preprocessing import band_spread, channel_scale
from deeplab_jax.parallel import place, state_shardings
from deeplab_jax.pixels import TORCHVISION_STD
from deeplab_jax.pretrained import locate
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.checks import check_floating_point
from deeplab_jax.training.setup import Run, run_batches
from deeplab_jax.training.state import TrainState, Variables, with_variables
from deeplab_jax.training.unfolding import BATCHES, unfold_batch_norm

Path = tuple[str, ...]
# Path of the fully connected layers fc6 and fc7 in a converted VGG-16.
SOURCE = ("params", "large_fov")
FULLY_CONNECTED = ("fc6", "fc7")


def decimated(
    given: Mapping[Path, np.ndarray], wanted: Mapping[Path, Any]
) -> dict[Path, np.ndarray]:
    """Subsamples the layers fc6 and fc7 of VGG-16 to their shapes in the network to train.

    Evenly spaced rows and columns of kernels are kept, including the corners. For example, every
    third row and column is kept if 7×7 becomes 3×3. If the layers have fewer channels in the
    network to train, randomly drawn filters are kept, and fc7 keeps the inputs from the filters
    that fc6 keeps. All ASPP branches get the same values.

    Args:
      given: arrays of VGG-16 by path.
      wanted: arrays of the network to train by path, of which only the shapes are used.

    Returns:
      The arrays in `given` by path, with subsampled arrays of fc6 and fc7.

    Raises:
      DeepLabError: fc6 or fc7 is missing in `given`, or smaller than in `wanted`.

    Source: DeepLab v1, section 3.2, which does not specify the rows, columns and filters.
    """
    cut = {path: array for path, array in given.items() if path[:2] != SOURCE}
    for path, array in wanted.items():
        if is_fully_connected(path):
            source = (*SOURCE, *path[-2:])
            if source not in given:
                raise DeepLabError(
                    "training.init_scope=vgg_decimated requires the weights of VGG-16, but "
                    f"{'/'.join(source)} is missing; give VGG-16 as training.init_from"
                )
            cut[path] = _cut(given[source], array.shape, path[-2])
    return cut


def is_fully_connected(path: Path) -> bool:
    """Returns whether an array belongs to fc6 or fc7."""
    return len(path) > 3 and path[-2] in FULLY_CONNECTED


def _cut(array: np.ndarray, shape: tuple[int, ...], layer: str) -> np.ndarray:
    if len(shape) != array.ndim or np.any(np.array(shape) > array.shape):
        raise DeepLabError(
            f"{layer} of shape {list(shape)} cannot be subsampled from {layer} of VGG-16, which "
            f"has the shape {list(array.shape)}; change model.fov or model.fc_channels, or set "
            "training.init_scope=backbone"
        )
    for axis, (size, kept) in enumerate(zip(array.shape, shape, strict=True)):
        array = np.take(array, _positions(size, kept, axis, array.ndim, layer), axis)
    return array


def _positions(size: int, kept: int, axis: int, num_axes: int, layer: str) -> np.ndarray:
    """Returns the indices kept on an axis of `layer` (`fc6` or `fc7`): `kept` of `size` indices."""
    if axis < num_axes - 2:
        return np.rint(np.linspace(0, size - 1, kept)).astype(int)
    number = FULLY_CONNECTED.index(layer)
    # The inputs of fc7 are the outputs of the filters that fc6 keeps.
    drawn_by = number if axis == num_axes - 1 else number - 1
    random = np.random.default_rng((0, drawn_by + 1))
    return np.sort(random.permutation(size)[:kept])


def for_bands(
    given: Mapping[Path, np.ndarray],
    wanted: Mapping[Path, Any],
    source: Architecture,
    architecture: Architecture,
) -> dict[Path, np.ndarray]:
    """Adapts the kernels of the first convolution from RGB to other bands.

    Bands 1, 2 and 3 get the kernels of red, green and blue. All other bands get the mean of these;
    with only one or two bands, each gets the mean. The kernels are then multiplied by two factors:

    * 3 / number of bands. An image that is equal in all bands then has the same response as a gray
      image in the source network.
    * The standard deviation of ImageNet's pixels after the normalization of the source network,
      divided by that of the bands after the normalization of the network to train (`band_spread`).

    Args:
      given: arrays of a network for RGB by path.
      wanted: arrays of the network to train by path, of which only the shapes are used.
      source: architecture of the given arrays.
      architecture: architecture of the network to train.

    Source: timm's `adapt_input_conv`, for the factor 3 / bands.
    """
    count, changed, own = architecture.in_channels, dict(given), band_spread(architecture)
    order = slice(None, None, -1) if source.preprocessing == "caffe_bgr" else slice(None)
    spread = 255 * np.array(TORCHVISION_STD)[order] * np.array(channel_scale(source))
    for path, array in given.items():
        shape = (*array.shape[:2], count, *array.shape[3:])
        reads_image = path[-1] == "kernel" and array.ndim == 4 and array.shape[2] == 3
        if reads_image and path in wanted and wanted[path].shape == shape:
            kernel = (array * spread[:, None])[:, :, order]
            mean = kernel.mean(axis=2, keepdims=True)
            colors = kernel if count >= 3 else kernel[:, :, :0]
            further = np.repeat(mean, count - colors.shape[2], axis=2)
            kernel = np.concatenate([colors, further], axis=2) * (3 / count / own)
            changed[path] = kernel.astype(array.dtype)
    return changed


CLASSIFIER, BACKBONE = "classifier", "backbone"
# Keywords that affect the values of trained variables, but not their shapes, by affected parts.
OF_BACKBONES = (
    *("preprocessing", "stride_placement", "rate_start"),
    *("pad_first_convolution", "pad_before_expansion"),
)
CONVENTIONS = (*OF_BACKBONES, "align_corners", "low_level_source")


class Initialization(NamedTuple):
    """Initial variables of a run.

    Attributes:
      variables: variables of the model to train.
      folded: paths, without `params`, of the batch normalizations that were folded into
        convolutions in the published model.
    """

    variables: Variables
    folded: frozenset[Path]


def initialize_from(
    fresh: Variables,
    source: pathlib.Path,
    reporter: Reporter,
    parts: str = "all",
    architecture: Architecture | None = None,
) -> Initialization:
    """Initializes variables from another model.

    Args:
      fresh: randomly initialized variables of the model to train; variables that are not loaded
        keep these values.
      source: workdir or model directory of the other model.
      reporter: receives messages about variables that are not loaded and kernels that are adapted.
      parts: variables to load. `all`: all variables, except classifiers of another shape;
        `backbone`: variables of the backbone; `matching`: variables whose name and shape are equal;
        `vgg_decimated`: variables of the backbone, and fc6 and fc7 subsampled by `decimated`.
      architecture: architecture of the model to train. If it takes other bands than RGB, and the
        other model takes RGB, the first kernels are adapted by `for_bands`. None: no adaptation.

    Raises:
      DeepLabError: a variable that must be loaded is missing or has another shape, or the other
        model is quantized.
    """
    check_name("training.init_scope", parts, INIT_SCOPES)
    description = checkpointing.read_description(source)
    theirs = description.create_model().architecture
    check_floating_point(theirs, source)
    wanted = traverse_util.flatten_dict(fresh)
    given = traverse_util.flatten_dict(checkpointing.read_variables(source))
    names = set(description.source.get("folded_batch_norm", ()))
    folded = {path: None for path in given if "/".join(path[1:-1]) in names}
    if architecture is not None:
        _check_channels(theirs, architecture, source, parts)
        if theirs.takes_rgb and not architecture.takes_rgb:
            given = for_bands(given, wanted, theirs, architecture)
            reporter.message(
                f"the first kernels of {source} take RGB; they are adapted to "
                f"{architecture.in_channels} bands"
            )
    given = (
        decimated(given, wanted)
        if parts == "vgg_decimated"
        else rename_branches_to_match(given, wanted)
    )
    fitting = _fitting(given, wanted)
    if parts == "backbone":
        fitting = {path for path in fitting if path[1] == BACKBONE}
    flags = _differing_flags(description, architecture) if architecture else ""
    _check(wanted, fitting, parts, source, flags)
    for line in _started_afresh(given, wanted, fitting, source, whole=parts == "all"):
        reporter.message(line)
    taken = {path: given[path] if path in fitting else array for path, array in wanted.items()}
    kept = {path[1:-1] for path in rename_branches_to_match(folded, wanted) if path in fitting}
    return Initialization(traverse_util.unflatten_dict(taken), frozenset(kept))


def _check_channels(
    theirs: Architecture, ours: Architecture, source: pathlib.Path, parts: str
) -> None:
    """Checks that `theirs` takes 3 bands or as many as `ours`, unless `parts` is "matching"."""
    if parts != "matching" and theirs.in_channels not in (3, ours.in_channels):
        raise DeepLabError(
            f"the model training.init_from={source} takes {theirs.in_channels} bands, but the data "
            f"has {ours.in_channels}; give a model for RGB or for {ours.in_channels} bands, or "
            "training.init_scope=matching"
        )


def warn_of_conventions(
    architecture: Architecture, source: pathlib.Path, reporter: Reporter, parts: str = "all"
) -> None:
    """Warns if the model whose variables are loaded follows other conventions than the new model.

    Conventions are keywords of `create_model`, such as `preprocessing` and `align_corners`, that do
    not change the shapes of variables. If they differ, loaded weights may not work well.

    Args:
      architecture: architecture of the model to train.
      source: workdir or model directory of the other model.
      reporter: receives one warning per keyword.
      parts: variables to load, as in `initialize_from`. `backbone`: only `OF_BACKBONES` is checked.
    """
    description = checkpointing.read_description(source)
    given = description.create_model().architecture
    whole = parts != BACKBONE and description.task != checkpointing.CLASSIFICATION
    for name in CONVENTIONS if whole else OF_BACKBONES:
        theirs, ours = getattr(given, name), getattr(architecture, name)
        if name == "low_level_source" and "none" in (given.decoder, architecture.decoder):
            continue
        if name == "preprocessing" and not architecture.takes_rgb and given.takes_rgb:
            # `for_bands` rescales the kernels.
            continue
        # Some networks do not have a convention; for example, VGG has no stride placement (None).
        if theirs != ours and None not in (theirs, ours):
            reporter.warning(
                f"{source} was trained with {name}={theirs}, but this network has {ours}, so the "
                f"loaded weights may not work well; consider --config.model.{name}={theirs}"
            )


def _fitting(given: Mapping[Path, np.ndarray], wanted: Mapping[Path, np.ndarray]) -> set[Path]:
    """Returns the paths of the variables that can be loaded.

    These are the variables in `wanted` that `given` contains with the same shape. A convolution is
    loaded together with its bias and normalization, or not at all.
    """
    unfit = {
        _unit(path)
        for path, array in wanted.items()
        if path not in given or given[path].shape != array.shape
    }
    return {path for path in wanted if _unit(path) not in unfit}


def _unit(path: Path) -> Path:
    _, *module, _ = path
    return tuple(module[:-1] if module[-1] == "norm" else module)


# Keywords in which a network may differ from the network whose variables it loads.
OF_THE_RUN = (*NOT_IN_CONFIG, "dtype", "frozen_batch_norm", "ghost_batch_size")
# Keywords that are determined by the dataset if its images are not 8-bit RGB.
NORMALIZATION = ("preprocessing", "pixel_mean", "pixel_std")


def _differing_flags(
    description: checkpointing.ModelDescription, architecture: Architecture
) -> str:
    """Returns the command-line flags that set `config.model` to the architecture of another model.

    Args:
      description: description of the other model; for image classifiers, the result is empty.
      architecture: current architecture. Equal keywords and those of run and data get no flag.
    """
    if description.task == checkpointing.CLASSIFICATION:
        return ""
    theirs, ours = description.create_model().architecture.describe(), architecture.describe()
    free = OF_THE_RUN if architecture.takes_rgb else (*OF_THE_RUN, *NORMALIZATION)
    differing = (name for name in theirs if theirs[name] != ours[name] and name not in free)
    pairs = ((name, str(theirs[name]).replace(" ", "")) for name in differing)
    return " ".join(f"--config.model.{name}={shlex.quote(value)}" for name, value in pairs)


def _check(
    wanted: Mapping[Path, Any],
    fitting: set[Path],
    parts: str,
    source: pathlib.Path,
    flags: str,
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
            f"training.init_from={source} is a different network: {len(foreign)} arrays are "
            f"missing or have another shape, such as {foreign[0]}; set config.model to the "
            f"architecture of that network{flags and f' ({flags})'}, or training.init_scope to "
            "backbone or matching"
        )
    if not fitting:
        raise DeepLabError(
            f"no variable of training.init_from={source} has the name and shape of a variable of "
            "this network; give a model with the same backbone"
        )


def _started_afresh(
    given: Mapping[Path, np.ndarray],
    wanted: Mapping[Path, np.ndarray],
    fitting: set[Path],
    source: pathlib.Path,
    whole: bool,
) -> list[str]:
    """Returns messages about the variables that are not loaded, but initialized randomly.

    If `whole` is True, each of them gets a message. Otherwise, one message lists their top modules.
    """
    afresh = [path for path in wanted if path not in fitting]
    if not whole:
        shown = ", ".join(dict.fromkeys(path[1] for path in afresh)) or "nothing"
        return [
            f"loaded {len(fitting)} arrays from {source}; parts with random initialization: {shown}"
        ]
    lines = []
    for path in afresh:
        there = "missing" if path not in given else f"of shape {list(given[path].shape)}"
        here = list(wanted[path].shape)
        lines.append(
            f"{'/'.join(path)} of shape {here} is initialized randomly, because it is {there} in "
            f"{source}"
        )
    return lines


def initial_state(run: Run, checkpointer: Checkpointer, reporter: Reporter) -> TrainState:
    """Returns the state that training starts from.

    If there is a checkpoint, its state is restored. Otherwise the state is initialized from the
    model `training.init_from`, or randomly.
    """
    spec, seed = run.state_spec, run.config.seed
    if checkpointer.latest_step is not None:
        state = checkpointer.restore(spec.abstract())
        reporter.message(f"resuming from step {int(state.step)} of {run.workdir}")
        return state
    if not run.config.training.init_from:
        return spec.create(seed)
    # The fresh variables are replicated, because every process reads all of them.
    fresh = dataclasses.replace(spec, fsdp=False).create(seed).variables
    variables = jax.tree.map(np.asarray, _other_variables(run, fresh, reporter))
    state = with_variables(jax.tree.map(jnp.asarray, variables), run.optimizer, spec.keep_ema)
    return place(state, state_shardings(state, run.mesh, fsdp=spec.fsdp))


def _other_variables(run: Run, fresh: Variables, reporter: Reporter) -> Variables:
    """Returns `fresh` with variables loaded from the model `training.init_from`.

    Batch normalization that is folded in that model is unfolded, unless `frozen_batch_norm` is set.
    """
    training, architecture = run.config.training, run.model.architecture
    source = locate(training.init_from, reporter)
    start = initialize_from(fresh, source, reporter, training.init_scope, architecture)
    warn_of_conventions(architecture, source, reporter, training.init_scope)
    if not start.folded or architecture.frozen_batch_norm:
        return start.variables
    reporter.message(
        f"the initial weights contain {len(start.folded)} batch normalizations folded into "
        f"convolutions; computing their statistics from {BATCHES} training batches"
    )
    images = (batch["image"] for batch in itertools.islice(run_batches(run, first=0), BATCHES))
    return unfold_batch_norm(run.model, start.variables, start.folded, images, run.mesh)
