"""Stands in for a data set that is not present: class count, shapes and sizes."""

import copy
import dataclasses
import pathlib
from typing import NoReturn

from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax.data import Descriptor, Example, descriptors
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.setup import Run, assemble

KNOWN = {
    descriptor.name: descriptor
    for descriptor in (
        descriptors.VOC,
        descriptors.CAMVID,
        descriptors.CITYSCAPES,
        descriptors.ADE20K,
        descriptors.COCO_STUFF,
        descriptors.PASCAL_CONTEXT,
        descriptors.PASCAL_PERSON_PART,
        descriptors.SHAPES,
    )
}
# COCO with the classes of VOC.
KNOWN["coco_voc"] = descriptors.VOC


@dataclasses.dataclass(frozen=True)
class Unseen:
    """A data set (see `Dataset`) of which only the classes are known."""

    name: str
    descriptor: Descriptor
    split: str = "train"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        raise NotImplementedError("nothing is read to plan")

    def image_sizes(self) -> NoReturn:
        """There are no images."""
        raise NotImplementedError("nothing is read to plan")


def unseen_dataset(config: ConfigDict, num_classes: int | None = None) -> Unseen:
    """Returns a stand-in for a config's data set.

    Args:
      config: see deeplab_jax/config_fields.py.
      num_classes: of a data set whose classes the config does not name.

    Raises:
      DeepLabError: nothing tells how many classes there are.
    """
    name = config.data.name
    if num_classes is not None:
        return Unseen(name, descriptors.describe(name, [f"class {n}" for n in range(num_classes)]))
    if config.data.class_names:
        return Unseen(name, descriptors.describe(name, config.data.class_names))
    if name not in KNOWN:
        raise DeepLabError(
            f"nothing tells how many classes the data set {name!r} has; give --num_classes"
        )
    return Unseen(name, KNOWN[name])


def assemble_unseen(
    config: ConfigDict, mesh: Mesh, num_classes: int | None, reporter: Reporter
) -> Run:
    """Returns the run of a config on a data set that need not be here; checked as `train` does."""
    config = copy.deepcopy(config)
    # Changes how often an image comes, not the step; finding them would read the data set.
    config.data.oversample_classes = None
    unseen = unseen_dataset(config, num_classes)
    return assemble(config, pathlib.Path("unwritten"), mesh, unseen, unseen, reporter=reporter)
