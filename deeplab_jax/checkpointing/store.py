"""Reads models from workdirs and model directories, and writes model directories."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import tensorstore
from etils import epath

from deeplab_jax.checkpointing import saved_states
from deeplab_jax.checkpointing.description import (
    SAFETENSORS,
    ModelDescription,
    read_description,
    write_description,
)
from deeplab_jax.checkpointing.saved_states import CHECKPOINTS, EMA, METRICS, VARIABLES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import absolute, as_path, replacing_directory

if TYPE_CHECKING:
    from deeplab_jax.models import DeepLab, ImageClassifier

Variables = dict[str, Any]
# Entry of `source` in `model.json` with the SHA-256 of the safetensors file.
WEIGHTS_SHA256 = f"{SAFETENSORS} sha256"
# Separator of the keys in the names of arrays in safetensors files. Module names, such as
# `block1/unit_1`, contain slashes, but no dots.
SEPARATOR = "."


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """Model, its variables as NumPy arrays, and its description."""

    model: "DeepLab | ImageClassifier"
    variables: Variables
    description: ModelDescription

    def changed(
        self, variables: Variables, overrides: dict[str, Any] | None = None, source: Any = None
    ) -> "StoredModel":
        """Returns a copy of this model with other variables, for example after pruning.

        The softmax temperature of the copy is 1, because a temperature that was fitted to the old
        variables is not valid for the new ones. The facts about that fit are removed from `source`.

        Args:
          variables: variables of the copy.
          overrides: keywords of `create_model` to change, and their new values (default: none).
          source: new value of `ModelDescription.source` (default: unchanged).
        """
        old = self.description
        overrides = old.overrides | (overrides or {})
        facts = {key: fact for key, fact in (source or old.source).items() if key != "temperature"}
        new = dataclasses.replace(old, overrides=overrides, source=facts, temperature=1.0)
        return StoredModel(new.create_model(), variables, new)


def read_model(
    path: str | pathlib.Path, checkpoint: str | int = "best", ema: bool | None = None
) -> StoredModel:
    """Reads a model from a training workdir or a model directory.

    Args:
      path: path of the workdir or model directory.
      checkpoint: checkpoint of a workdir: `best`, `last` or a step.
      ema: whether to read the moving average of the variables (EMA) from the checkpoint, instead of
        the variables themselves; None: the moving average if the checkpoint contains it. A model
        directory has only one set of variables, so `checkpoint` and `ema` are ignored.

    Raises:
      DeepLabError: the model, the checkpoint or the moving average does not exist, a file is
        damaged, or a variable is NaN or infinite.
    """
    path = as_path(path)
    if not path.is_dir():
        raise DeepLabError(
            f"no model at {path}: there is no such directory; give the workdir of a training run "
            "or a model directory"
        )
    description = read_description(path)
    variables = read_variables(path, checkpoint, ema)
    return StoredModel(description.create_model(), variables, description)


def read_variables(
    path: pathlib.Path, checkpoint: str | int = "best", ema: bool | None = None
) -> Variables:
    """Reads the variables of a model as NumPy arrays, regardless of their sharding in training.

    Args:
      path: path of the workdir or model directory.
      checkpoint: checkpoint of a workdir: `best`, `last` or a step.
      ema: whether to read the moving average of the variables (EMA) from the checkpoint, instead of
        the variables themselves; None: the moving average if the checkpoint contains it. A model
        directory has only one set of variables, so `checkpoint` and `ema` are ignored.

    Raises:
      DeepLabError: the checkpoint or the moving average does not exist, a file is damaged, or a
        variable is NaN or infinite.
    """
    path = absolute(path)
    variables = _read(path, checkpoint, ema)
    for name, array in _named(variables):
        if not np.isfinite(array).all():
            raise DeepLabError(
                f"{path}: the variable {name} contains NaN or infinite values, so the outputs of "
                "the network have no meaning; choose another checkpoint, or convert a model whose "
                "variables are finite"
            )
    return variables


def _read(path: epath.Path, checkpoint: str | int, ema: bool | None) -> Variables:
    """Reads variables from an absolute path; unlike `read_variables`, accepts NaN and infinity."""
    if (path / VARIABLES).is_dir():
        wrong = saved_states.damage(path / VARIABLES)
        if wrong:
            raise DeepLabError(
                f"{path / VARIABLES} is damaged: {wrong}; restore the files, or convert the model "
                "again"
            )
        return _restore(path / VARIABLES)
    if (path / SAFETENSORS).is_file():
        return _read_safetensors(path)
    if not (path / CHECKPOINTS).is_dir():
        raise DeepLabError(
            f"{path} has no checkpoint yet; wait until the run saves one, or give another model"
        )
    for step in saved_states.saved_steps(path):
        # Orbax reads the metrics of all checkpoints when the directory is opened.
        _check(path, step, METRICS)
    from deeplab_jax.checkpointing.orbax_items import choose_step, open_checkpoints

    with open_checkpoints(path) as manager:
        step = choose_step(manager, checkpoint)
    directory = path / CHECKPOINTS / str(step)
    has_ema = (directory / EMA).is_dir()
    if ema and not has_ema:
        raise DeepLabError(
            f"{path} has no moving average of the variables (training.ema_decay was 0); read the "
            "variables themselves (--noema, in Python ema=False)"
        )
    item = EMA if has_ema and ema is not False else VARIABLES
    _check(path, step, item)
    return _restore(directory / item)


def _check(path: epath.Path, step: int, item: str) -> None:
    """Raises a DeepLabError if a file of the checkpoint item is damaged."""
    wrong = saved_states.checkpoint_damage(path, step, item)
    if wrong:
        remedy = f"move {path / CHECKPOINTS / str(step)} to another directory"
        # Damaged metrics prevent reading any checkpoint of the run.
        if item != METRICS:
            remedy = f"choose another checkpoint (--checkpoint), or {remedy}"
        raise DeepLabError(f"the checkpoint of step {step} in {path} is damaged: {wrong}; {remedy}")


def write_model(
    directory: str | pathlib.Path, description: ModelDescription, variables: Variables
) -> None:
    """Writes a model directory atomically.

    Args:
      directory: path of a new or an empty directory.
      description: description of the model.
      variables: variables of the model.

    Raises:
      DeepLabError: `directory` exists and is not empty.
    """
    # Imported here, because reading does not require Orbax.
    from deeplab_jax.checkpointing.orbax_items import save_tree

    with replacing_directory(absolute(directory)) as temporary:
        write_description(temporary, description)
        save_tree(temporary / VARIABLES, variables)
        saved_states.write_manifest(epath.Path(temporary / VARIABLES))


def _restore(source: epath.Path) -> Variables:
    """Reads a PyTree checkpoint of Orbax with TensorStore.

    The checkpoint is an OCDBT database with one Zarr array per leaf. Orbax itself is not used,
    because importing it takes longer than reading the arrays.
    """
    metadata = json.loads((source / "_METADATA").read_text())
    base = str(source) if "://" in str(source) else source.as_uri()
    paths = [
        tuple(str(part["key"]) for part in leaf["key_metadata"])
        for leaf in metadata["tree_metadata"].values()
        if not leaf["value_metadata"]["skip_deserialize"]
    ]
    driver, context = "zarr3" if metadata["use_zarr3"] else "zarr", tensorstore.Context()
    stores = (
        {"driver": "ocdbt", "base": f"{base}/", "path": f"{'.'.join(path)}/"} for path in paths
    )
    specs = [{"driver": driver, "kvstore": store} for store in stores]
    opened = [tensorstore.open(spec, open=True, read=True, context=context) for spec in specs]
    reads = [array.result().read() for array in opened]
    return _nested({path: array.result() for path, array in zip(paths, reads, strict=True)})


def write_shared_model(
    directory: pathlib.Path, description: ModelDescription, variables: Variables
) -> None:
    """Writes `model.safetensors` and `model.json` into a directory.

    The names of the arrays are the paths of the variables, with dots between the keys, such as
    `params.backbone.block1/unit_1.conv1.kernel`. `model.json` contains the SHA-256 of
    `model.safetensors`.

    Args:
      directory: existing directory.
      description: description of the model.
      variables: variables of the model, of any numeric dtypes.
    """
    # Imported here, because other model directories do not require safetensors.
    from safetensors.numpy import save

    # safetensors stores the memory of an array without its order, so the order must be C.
    named = _named(variables, SEPARATOR)
    arrays = {name: np.require(array, requirements="C") for name, array in named}
    content = save(arrays, metadata={"format": "flax"})
    (directory / SAFETENSORS).write_bytes(content)
    checksum = {WEIGHTS_SHA256: hashlib.sha256(content).hexdigest()}
    described = dataclasses.replace(description, source=description.source | checksum)
    write_description(directory, described)


def _named(
    variables: Variables, separator: str = "/", above: str = ""
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the path and the array of each variable.

    Args:
      variables: nested dictionaries of arrays. The path of an array is its keys, joined by
        `separator`.
      separator: text between two keys.
      above: prefix of all paths: empty, or the path of `variables` in recursive calls.
    """
    for name, value in variables.items():
        if isinstance(value, dict):
            yield from _named(value, separator, f"{above}{name}{separator}")
        else:
            yield above + name, np.asarray(value)


def _read_safetensors(directory: epath.Path) -> Variables:
    """Reads the variables from `model.safetensors`, which `write_shared_model` wrote.

    Raises:
      DeepLabError: the file is damaged, or its SHA-256 is not the one in `model.json`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = directory / SAFETENSORS
    content, expected = path.read_bytes(), read_description(directory).source.get(WEIGHTS_SHA256)
    found = hashlib.sha256(content).hexdigest()
    if expected not in (None, found):
        raise DeepLabError(
            f"{path} is damaged: its SHA-256 is {found}, expected {expected}; copy or download the "
            "model again"
        )
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise DeepLabError(f"{path} is damaged: {error}; copy or download it again") from error
    # Earlier versions wrote slashes between the keys, and no dots.
    separator = SEPARATOR if any(SEPARATOR in name for name in arrays) else "/"
    return _nested({tuple(name.split(separator)): array for name, array in arrays.items()})


def digest_of_variables(variables: Variables) -> str:
    """Returns the SHA-256 of paths, dtypes, shapes and values of all variables, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {np.shape(leaf)}".encode())
        # The bytes, because bfloat16 arrays have no buffer interface.
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _nested(arrays: dict[tuple[str, ...], np.ndarray]) -> Variables:
    """Converts a flat dictionary {path: array} to nested dictionaries {name: {name: … array}}."""
    variables: Variables = {}
    for (*above, name), array in arrays.items():
        node = variables
        for part in above:
            node = node.setdefault(part, {})
        node[name] = array
    return variables
