"""PASCAL VOC 2012 segmentation, with the extra annotations of SBD where they are there.

Source: Everingham et al. 2015; Hariharan et al. 2011 for `SegmentationClassAug`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.builders.paired_files import (
    Pair,
    PairedFilesBuilder,
    image_files,
    listed_stems,
)
from deeplab_jax.data.descriptors import VOC, Descriptor
from deeplab_jax.data.masks import MaskFile, identity_labels, read_mask

LISTS = Path("ImageSets/Segmentation")
MASKS, AUG_MASKS = "SegmentationClass", "SegmentationClassAug"
AUG_LISTS = ("train_aug.txt", "trainaug.txt")


class VocSegmentation(PairedFilesBuilder, skip_registration=True):
    """Reads `JPEGImages/`, `SegmentationClass/` and the lists of `ImageSets/Segmentation/`.

    With `SegmentationClassAug/` there is a split train_aug too: of its own list, or else of all its
    masks but those of val. val is read from `SegmentationClass/` unless `aug_val_masks` is set.
    """

    ROOTS = (".", "VOCdevkit/VOC2012", "VOC2012")
    LANDMARK = "JPEGImages"
    LAYOUT = f"a VOC source holds JPEGImages/, {MASKS}/ and {LISTS}/train.txt, val.txt"

    def __init__(self, *, aug_val_masks: bool = False, **kwargs: Any) -> None:
        self._aug_val_masks = aug_val_masks
        super().__init__(**kwargs)
        if aug_val_masks:
            self.reporter.warning(
                f"val is read from {AUG_MASKS}: its mIoU is not comparable with published ones"
            )

    @property
    def descriptor(self) -> Descriptor:
        return VOC

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        train, val = self._listed("train.txt"), self._listed("val.txt")
        pairs = {
            "train": self._pairs_of(train, MASKS),
            "val": self._pairs_of(val, AUG_MASKS if self._aug_val_masks else MASKS),
        }
        if (self.source / AUG_MASKS).is_dir():
            pairs["train_aug"] = self._pairs_of(self._augmented(val), AUG_MASKS)
        return pairs

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return read_mask(mask, identity_labels(VOC.num_classes))

    def _pairs_of(self, stems: list[str], masks: str) -> dict[str, Pair]:
        return {
            stem: Pair(
                self.source / "JPEGImages" / f"{stem}.jpg", self.source / masks / f"{stem}.png"
            )
            for stem in stems
        }

    def _augmented(self, val: list[str]) -> list[str]:
        for name in AUG_LISTS:
            if (self.source / LISTS / name).is_file():
                return self._listed(name)
        held_out = set(val)
        stems = (path.stem for path in image_files(self.source / AUG_MASKS))
        return [stem for stem in stems if stem not in held_out]

    def _listed(self, name: str) -> list[str]:
        return listed_stems(self.source / LISTS / name)
