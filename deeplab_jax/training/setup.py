"""Builds all parts of a training run from its config."""

import copy
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.checkpointing import ModelDescription
from deeplab_jax.data import (
    ArrayDataset,
    Augmentation,
    duplicated,
    open_dataset,
    training_batches,
)
from deeplab_jax.data.datasets import Dataset, are_binary, label_values, range_doubt
from deeplab_jax.data.mixing import pasted_labels
from deeplab_jax.data.prepared import PreparedDataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture, DeepLab
from deeplab_jax.parallel import data_share, put_batch
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checks import (
    check_bands,
    check_batch,
    check_chunk_rows,
    check_classes,
    check_crop_size,
    check_frozen_parts,
    check_ghost_batch_size,
    check_pooled_statistics,
    check_untrained_parts,
    check_warmup,
)
from deeplab_jax.training.loss import Objective, make_objective
from deeplab_jax.training.optimizers import make_optimizer, make_schedule
from deeplab_jax.training.state import StateSpec
from deeplab_jax.training.workdir import format_version, network_of, with_network

# Maximum number of classes that a warning lists.
SHOWN_CLASSES = 5
Arrays = tuple[np.ndarray | Sequence[np.ndarray], np.ndarray | Sequence[np.ndarray]]
Source = str | Arrays | Dataset | None


@dataclasses.dataclass(frozen=True)
class Run:
    """Training run, with all parts built from its config.

    Attributes:
      config: config of the run. Arguments such as `batch_size` have replaced its fields, and its
        section `model` states all settings of the network.
      workdir: directory of the run; `os.devnull` if `assemble` was called without a workdir.
      mesh: device mesh.
      train, validation: datasets.
      model, description: network, and the content of its `model.json`.
      augmentation: augmentation of training examples.
      learning_rate, optimizer: learning-rate schedule and optimizer.
      objective: loss to minimize.
      adjustments: settings of the functions that changed the run after it was built, for example
        the weight of a distillation loss. The values are JSON-ready. A run is resumed only with
        equal adjustments.
    """

    config: ConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    train: Dataset
    validation: Dataset
    model: DeepLab
    description: ModelDescription
    augmentation: Augmentation
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation
    objective: Objective
    adjustments: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def state_spec(self) -> StateSpec:
        """Specification of the training state."""
        return StateSpec(
            self.model,
            self.optimizer,
            self.mesh,
            self.augmentation.crop_size,
            keep_ema=self.config.training.ema_decay > 0,
            fsdp=self.config.parallel.fsdp,
        )


def assemble(
    config: ConfigDict,
    workdir: pathlib.Path | None,
    mesh: Mesh,
    train: Source,
    validation: Source,
    *,
    batch_size: int | None = None,
    epochs: float | None = None,
    reporter: Reporter,
) -> Run:
    """Checks a config and builds all parts of a training run; writes nothing.

    Args:
      config: config of the run, see deeplab_jax/config_fields.py.
      workdir: directory of the run. If an earlier release started the run, the network has the
        defaults of that release. None: no directory, for example to draw the first batch.
      mesh: device mesh.
      train, validation: name of a prepared dataset, a pair of arrays (images, masks), or an opened
        dataset; None: the dataset of the config.
      batch_size: replaces `config.training.batch_size`.
      epochs: number of epochs, which replaces `config.training.num_steps`. The model is then
        evaluated and saved after each epoch.
      reporter: receives warnings.

    Raises:
      DeepLabError: invalid field, missing dataset, or datasets with unequal class counts or bands.
    """
    config = _checked(config, batch_size, epochs)
    train_set, validation_set = _open_sources(train, validation, config, reporter)
    if config.data.oversample_classes:
        train_set = duplicated(train_set, config.data.oversample_classes)
    _set_epochs(config, epochs, len(train_set))
    check_classes(train_set, validation_set, config.loss.class_weights)
    check_bands(train_set, validation_set, config.augmentation)
    num_classes, bands = len(train_set.descriptor.class_names), train_set.descriptor.bands
    network = network_of(config, num_classes, format_version(workdir), bands)
    config = with_network(config, network)
    description = _description(config, train_set, network)
    model = description.create_model()
    augmentation = Augmentation(**config.augmentation.to_dict(), fill=model.architecture.mean_pixel)
    pasted_labels(train_set, augmentation)
    _check_fit(config, model.architecture, augmentation.crop_size, mesh, reporter)
    learning_rate = make_schedule(config.schedule, config.training.num_steps)
    return Run(
        config=config,
        workdir=workdir or pathlib.Path(os.devnull),
        mesh=mesh,
        train=train_set,
        validation=validation_set,
        model=model,
        description=description,
        augmentation=augmentation,
        learning_rate=learning_rate,
        optimizer=make_optimizer(config.optimizer, learning_rate),
        objective=make_objective(config.loss, model.architecture),
    )


def _check_fit(
    config: ConfigDict,
    architecture: Architecture,
    crop_size: tuple[int, int],
    mesh: Mesh,
    reporter: Reporter,
) -> None:
    """Checks that crop size, batch size, loss and optimizer fit the network and the devices."""
    check_crop_size(crop_size, architecture, config.strict_crop, reporter)
    batch = config.training.batch_size, config.training.accumulation_steps
    check_batch(*batch, mesh)
    check_ghost_batch_size(architecture.ghost_batch_size, *batch)
    together = config.training.batch_size // config.training.accumulation_steps
    check_pooled_statistics(architecture, crop_size, together, reporter)
    check_chunk_rows(config.loss.chunk_rows, mesh)
    check_frozen_parts(config, architecture, reporter)
    check_untrained_parts(config, architecture, reporter)
    check_warmup(config, reporter)


def _checked(config: ConfigDict, batch_size: int | None, epochs: float | None) -> ConfigDict:
    """Checks `epochs` and all fields; returns a copy of the config with the given batch size."""
    config = copy.deepcopy(config)
    if batch_size is not None:
        config.training.batch_size = batch_size
    configs.check(config)
    if epochs is not None and not 0 < epochs < math.inf:
        raise DeepLabError(f"epochs={epochs!r} must be a finite number above 0")
    return config


def _set_epochs(config: ConfigDict, epochs: float | None, num_images: int) -> None:
    """Sets the number of steps, and the steps between evaluations and between checkpoints.

    If `epochs` is None, the config stays as it is.
    """
    if epochs is None:
        return
    steps_per_epoch = max(1, round(num_images / config.training.batch_size))
    config.training.num_steps = max(1, round(epochs * steps_per_epoch))
    config.evaluation.every_steps = steps_per_epoch
    config.checkpoint.every_steps = steps_per_epoch


def _open_sources(
    train: Source, validation: Source, config: ConfigDict, reporter: Reporter
) -> tuple[Dataset, Dataset]:
    """Opens both datasets of a run, and warns if they do not fit together.

    Warns of absent classes, of images that both contain, and of different intensity ranges.
    """
    binary = _binary_arrays(train, validation, config.data.class_names)
    train_set = open_source(train, config, config.data.train_split, binary)
    warn_of_absent_classes(train_set, reporter)
    validation_set = open_source(validation, config, config.data.validation_split, binary)
    warn_of_shared_images(train_set, validation_set, reporter)
    # Arrays have no intensity range.
    if not isinstance(train_set, ArrayDataset):
        limits, owner = train_set.descriptor.intensity_range, f"the dataset {train_set.name}"
        if doubt := range_doubt(limits, owner, validation_set):
            reporter.warning(doubt)
    return train_set, validation_set


def warn_of_absent_classes(train_set: Dataset, reporter: Reporter) -> None:
    """Warns of classes without any pixel in a training dataset of in-memory arrays.

    For datasets in files, the command `prepare` warns.
    """
    absent = train_set.absent_classes if isinstance(train_set, ArrayDataset) else ()
    if absent:
        reporter.warning(
            f"{train_set.name}: {len(absent)} of {train_set.descriptor.num_classes} classes have "
            f"no pixel in the training masks: {', '.join(absent[:SHOWN_CLASSES])}"
            f"{', …' if len(absent) > SHOWN_CLASSES else ''}"
        )


def warn_of_shared_images(train_set: Dataset, validation_set: Dataset, reporter: Reporter) -> None:
    """Warns of images that two splits of a prepared dataset share, as `train+val` and `val` do.

    Equal images that are stored twice are not found; the command `prepare` warns of them.
    """
    if not (isinstance(train_set, PreparedDataset) and isinstance(validation_set, PreparedDataset)):
        return
    if number := train_set.num_shared(validation_set):
        reporter.warning(
            f"{number} of {len(validation_set)} images of the validation split "
            f"{validation_set.split!r} are also in the training split {train_set.split!r}, so the "
            "validation overestimates the accuracy on new images; change data.train_split or "
            "data.validation_split"
        )


def _binary_arrays(
    train: Source, validation: Source, class_names: Sequence[str] | None
) -> bool | None:
    """Returns whether the mask value 255 is class 1 instead of void in both datasets.

    The result is `are_binary` for the masks of training and validation together. It is None if one
    of the datasets is not a pair of arrays (images, masks), or if masks are invalid.
    """
    if not (isinstance(train, tuple) and isinstance(validation, tuple)):
        return None
    try:
        values = label_values([*train[1], *validation[1]])
    except (TypeError, ValueError):
        # The error is reported when the arrays are opened.
        return None
    return are_binary(values, class_names)


def open_source(
    source: Source, config: ConfigDict, split: str, binary: bool | None = None
) -> Dataset:
    """Opens a dataset.

    Args:
      source: name of a prepared dataset, a pair of arrays (images, masks), or an opened dataset;
        None: the dataset of the config.
      config: config of the run.
      split: split of a prepared dataset.
      binary: for arrays, whether the mask value 255 is class 1 instead of void; see `ArrayDataset`.

    Raises:
      DeepLabError: the dataset does not exist, or neither `source` nor the config names a dataset.
    """
    names = config.data.class_names
    if source is None or isinstance(source, str):
        name = source or config.data.name
        if not name:
            raise DeepLabError(
                "no dataset: set data.name in the config, or pass arrays for train and validation"
            )
        return open_dataset(name, config.data.data_dir, split, class_names=names)
    if isinstance(source, tuple):
        return ArrayDataset(*source, class_names=names, binary=binary)
    return source


def _description(config: ConfigDict, train_set: Dataset, network: Architecture) -> ModelDescription:
    descriptor = train_set.descriptor
    return ModelDescription(
        architecture=config.model.architecture,
        overrides=network.describe(),
        class_names=descriptor.class_names,
        palette=descriptor.palette,
        intensity_range=descriptor.intensity_range,
        bands=descriptor.bands.chosen,
        source={"trained_on": f"{train_set.name}/{train_set.split}", "jax": jax.__version__},
    )


def run_batches(run: Run, first: int) -> Iterator[dict[str, jax.Array]]:
    """Returns the training batches, placed on the devices.

    Args:
      run: training run.
      first: step from which the run starts or resumes; the first batch is that of the next step.
    """
    share = data_share(run.mesh)
    batches = training_batches(
        run.train,
        run.augmentation,
        batch_size=run.config.training.batch_size,
        seed=run.config.seed,
        start_step=first,
        host=share.index,
        num_hosts=share.count,
        workers=run.config.data.workers,
    )
    return (put_batch(batch, run.mesh) for batch in batches)
