"""Cityscapes: 2,975 train and 500 val images of 2048 × 1024, finely annotated.

The further 19,998 of `train_extra` with coarse annotations are prepared where they are there. The
1,525 test images come without labels and are not.
Source: Cordts et al. 2016 (arXiv:1604.01685).
"""

from pathlib import Path

import numpy as np

from deeplab_jax.data.builders.paired_files import (
    Pair,
    PairedFilesBuilder,
    image_files,
    pairs_by_name,
)
from deeplab_jax.data.descriptors import CITYSCAPES, CITYSCAPES_LABEL_IDS, Descriptor
from deeplab_jax.data.masks import MaskFile, read_mask
from deeplab_jax.labels import IGNORE_LABEL

# labelIds run 0..33; licence plates, -1, are 255 in an 8-bit file.
LABELS = dict.fromkeys((*range(34), 255), IGNORE_LABEL) | {
    label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_LABEL_IDS)
}
IMAGE_ENDING = "_leftImg8bit"
FINE, COARSE = "gtFine", "gtCoarse"
SPLITS = {"train": FINE, "val": FINE, "train_extra": COARSE}


class Cityscapes(PairedFilesBuilder, skip_registration=True):
    """Reads `leftImg8bit/SPLIT/CITY/` and the labelIds of `gtFine/SPLIT/CITY/`.

    `train_extra` takes its masks from `gtCoarse/`, if both are there.
    """

    LANDMARK = "leftImg8bit"
    LAYOUT = "a Cityscapes source holds leftImg8bit/train/CITY/, gtFine/train/CITY/ and val"

    @property
    def descriptor(self) -> Descriptor:
        return CITYSCAPES

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        there = {
            split: truth
            for split, truth in SPLITS.items()
            if truth == FINE or (self.source / truth / split).is_dir()
        }
        return {split: self._pairs_of(split, truth) for split, truth in there.items()}

    def _pairs_of(self, split: str, truth: str) -> dict[str, Pair]:
        def frame(image: Path) -> str:
            return image.stem.removesuffix(IMAGE_ENDING)

        def mask(image: Path) -> Path:
            city = self.source / truth / split / image.parent.name
            return city / f"{frame(image)}_{truth}_labelIds.png"

        return pairs_by_name(image_files(self.source / "leftImg8bit" / split), frame, mask)

    def directories(self) -> set[Path]:
        return {
            directory
            for split in self.image_ids()
            for directory in (
                self.source / "leftImg8bit" / split,
                self.source / SPLITS[split] / split,
            )
        }

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return read_mask(mask, LABELS)
