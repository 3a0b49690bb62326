"""Placeholder for a dataset that is not on this machine: its classes without its examples."""

import copy
import dataclasses
from typing import NoReturn

from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax.data import Descriptor, Example, descriptors
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import check_class_names
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.setup import Run, assemble

# Descriptors of the supported datasets by name, including COCO with the classes of VOC.
KNOWN = {known.name: known for known in vars(descriptors).values() if isinstance(known, Descriptor)}
KNOWN["coco_voc"] = descriptors.VOC


@dataclasses.dataclass(eq=False)
class Unseen:
    """Dataset of which only the name and the classes are known."""

    name: str
    descriptor: Descriptor
    split: str = "train"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        raise NotImplementedError("the placeholder dataset of a plan has no examples to read")

    def image_sizes(self) -> NoReturn:
        """Raises an error, since there are no images."""
        raise NotImplementedError("the placeholder dataset of a plan has no images to measure")


def unseen_dataset(config: ConfigDict, num_classes: int | None = None) -> Unseen:
    """Returns a placeholder for a config's dataset.

    Args:
      config: see deeplab_jax/config_fields.py.
      num_classes: number of classes; None: that of the classes in the config or, if the config
        names none, of the supported dataset.

    Raises:
      DeepLabError: the number of classes is unknown, or `num_classes` is below 2.
    """
    name, class_names = config.data.name, config.data.class_names
    if num_classes is not None:
        class_names = [f"class {n}" for n in range(num_classes)]
        check_class_names(class_names, f"num_classes={num_classes}")
    if class_names:
        return Unseen(name, descriptors.describe(name, class_names))
    if name not in KNOWN:
        raise DeepLabError(
            f"the number of classes of the dataset {name!r} is unknown; give --num_classes"
        )
    return Unseen(name, KNOWN[name])


def assemble_unseen(
    config: ConfigDict, mesh: Mesh, num_classes: int | None, reporter: Reporter
) -> Run:
    """Builds the training run of a config as `train` does, but without opening the dataset.

    Args:
      config: see deeplab_jax/config_fields.py.
      mesh: device mesh, of this job or of a topology.
      num_classes: number of classes, or None, as in `unseen_dataset`.
      reporter: receives warnings.
    """
    config = copy.deepcopy(config)
    # Oversampling and copy-paste need the dataset, and do not change the training step.
    config.data.oversample_classes = None
    config.augmentation.copy_paste, config.augmentation.copy_paste_classes = 0.0, None
    unseen = unseen_dataset(config, num_classes)
    return assemble(config, None, mesh, unseen, unseen, reporter=reporter)
