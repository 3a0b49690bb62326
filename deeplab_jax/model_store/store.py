"""Reads and writes a model with its variables."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing_directory
from deeplab_jax.model_store.checkpoints import (
    CHECKPOINTS,
    EMA,
    VARIABLES,
    choose_step,
    open_checkpoints,
)
from deeplab_jax.model_store.description import (
    ModelDescription,
    read_description,
    write_description,
)
from deeplab_jax.models import DeepLab, ImageClassifier

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model with its variables (NumPy arrays) and its description."""

    model: DeepLab | ImageClassifier
    variables: Variables
    description: ModelDescription


def read_model(
    path: str | pathlib.Path, checkpoint: str = "best", ema: bool | None = None
) -> StoredModel:
    """Reads a model from a training workdir or a model directory.

    Args:
      path: of either.
      checkpoint: of a workdir: `best`, `last` or a step.
      ema: the averaged variables (True), those of the last update (False), or the averaged ones
        where the run kept them (None).

    Raises:
      DeepLabError: there is no model, no such checkpoint, or no averaged variables.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise DeepLabError(f"no model at {path}: there is no such directory")
    description = read_description(path)
    variables = read_variables(path, checkpoint, ema)
    return StoredModel(description.create_model(), variables, description)


def read_variables(
    path: pathlib.Path, checkpoint: str = "best", ema: bool | None = None
) -> Variables:
    """Reads the variables of a checkpoint as NumPy arrays, whatever devices wrote them.

    Raises:
      DeepLabError: as `read_model`.
    """
    if (path / VARIABLES).is_dir():
        return _restore(path.absolute() / VARIABLES)
    if not (path / CHECKPOINTS).is_dir():
        raise DeepLabError(f"{path} holds no checkpoint yet")
    with open_checkpoints(path) as manager:
        step = choose_step(manager, checkpoint)
        items = {entry.name for entry in (path / CHECKPOINTS / str(step)).iterdir()}
        if ema and EMA not in items:
            raise DeepLabError(f"{path} kept no averaged parameters (training.ema_decay was 0)")
        item = EMA if EMA in items and ema is not False else VARIABLES
        source = path.absolute() / CHECKPOINTS / str(step) / item
    return _restore(source)


def write_model(
    directory: str | pathlib.Path, description: ModelDescription, variables: Variables
) -> None:
    """Writes a model directory whole or not at all.

    Args:
      directory: must not exist, or be empty.
      description: of the model.
      variables: its arrays.

    Raises:
      DeepLabError: there is something at `directory`.
    """
    directory = pathlib.Path(directory).absolute()
    with replacing_directory(directory) as temporary:
        write_description(temporary, description)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / VARIABLES, variables)


def _restore(source: pathlib.Path) -> Variables:
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(source).item_metadata
        # NumPy targets leave the devices of the run that saved out of it.
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), dict(metadata))
        return checkpointer.restore(source, target)
