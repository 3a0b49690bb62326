"""ADE20K's scene-parsing benchmark: 20,210 training and 2,000 validation images, 150 classes.

Label 0, "other", is stored as void and the ids 1..150 stay: a network of 151 outputs whose output 0
is never a target. Source: Zhou et al. 2017; the MIT Scene Parsing Challenge 2016.
"""

import numpy as np

from deeplab_jax.data.builders.paired_files import (
    Pair,
    PairedFilesBuilder,
    image_files,
    pairs_by_name,
)
from deeplab_jax.data.descriptors import ADE20K, Descriptor
from deeplab_jax.data.masks import MaskFile, read_mask
from deeplab_jax.labels import IGNORE_LABEL

LABELS = {value: value for value in range(1, ADE20K.num_classes)} | {0: IGNORE_LABEL}
DIRECTORIES = {"train": "training", "val": "validation"}


class Ade20k(PairedFilesBuilder, skip_registration=True):
    """Reads `images/training/`, `annotations/training/` and the same of `validation`."""

    ROOTS = (".", "ADEChallengeData2016")
    LANDMARK = "annotations"
    LAYOUT = "an ADE20K source holds images/training/, annotations/training/ and validation"

    @property
    def descriptor(self) -> Descriptor:
        return ADE20K

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        return {split: self._pairs_of(directory) for split, directory in DIRECTORIES.items()}

    def _pairs_of(self, directory: str) -> dict[str, Pair]:
        masks = self.source / "annotations" / directory
        return pairs_by_name(
            image_files(self.source / "images" / directory),
            lambda image: image.stem,
            lambda image: masks / f"{image.stem}.png",
        )

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return read_mask(mask, LABELS)
