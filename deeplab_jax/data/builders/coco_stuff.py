"""COCO-Stuff: 118,287 train and 5,000 val images of COCO 2017, 80 things and 91 stuff classes.

Source: Caesar et al. 2018 (arXiv:1612.03716); the page of the data set, nightrome/cocostuff.
"""

import numpy as np

from deeplab_jax.data.builders.paired_files import (
    Pair,
    PairedFilesBuilder,
    image_files,
    pairs_by_name,
)
from deeplab_jax.data.descriptors import COCO_STUFF, COCO_STUFF_UNUSED_IDS, Descriptor
from deeplab_jax.data.masks import MaskFile, read_mask
from deeplab_jax.labels import IGNORE_LABEL

# The maps hold id − 1, 0..181 with gaps, and 255.
USED_VALUES = [value for value in range(182) if value + 1 not in COCO_STUFF_UNUSED_IDS]
LABELS = {value: label for label, value in enumerate(USED_VALUES)} | {IGNORE_LABEL: IGNORE_LABEL}
MASK_DIRECTORIES = ("annotations", "stuffthingmaps")


class CocoStuff(PairedFilesBuilder, skip_registration=True):
    """Reads `images/train2017/`, the stuff-thing maps of `annotations/train2017/`, and val2017."""

    ROOTS = (".", "dataset")
    LANDMARK = "images"
    LAYOUT = (
        "a COCO-Stuff source holds images/train2017/, the PNGs of stuffthingmaps_trainval2017 in "
        "annotations/train2017/ (or stuffthingmaps/), and the same of val2017"
    )

    @property
    def descriptor(self) -> Descriptor:
        return COCO_STUFF

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        return {split: self._pairs_of(f"{split}2017") for split in ("train", "val")}

    def _pairs_of(self, directory: str) -> dict[str, Pair]:
        candidates = [self.source / name / directory for name in MASK_DIRECTORIES]
        masks = next((path for path in candidates if path.is_dir()), candidates[0])
        return pairs_by_name(
            image_files(self.source / "images" / directory),
            lambda image: image.stem,
            lambda image: masks / f"{image.stem}.png",
        )

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return read_mask(mask, LABELS)
