"""COCO-Stuff: 118,287 train and 5,000 val images of COCO 2017, 80 thing and 91 stuff classes.

Source: Caesar et al. 2018 (arXiv:1612.03716); GitHub page of the dataset, nightrome/cocostuff.
"""

from pathlib import Path

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, pairs_by_stem
from deeplab_jax.data.descriptors import COCO_STUFF, COCO_STUFF_UNUSED_IDS
from deeplab_jax.labels import VOID_LABEL

# Values in the masks: id − 1, which is 0..181 with gaps.
USED_VALUES = [value for value in range(182) if value + 1 not in COCO_STUFF_UNUSED_IDS]


class CocoStuff(PairedFilesBuilder):
    """Reads COCO-Stuff from `images/` and `annotations/`, each with `train2017/` and `val2017/`."""

    ROOTS = (".", "dataset")
    LANDMARK = "images"
    LAYOUT = (
        "a COCO-Stuff source contains images/train2017/, the PNGs of stuffthingmaps_trainval2017 "
        "in annotations/train2017/ (or stuffthingmaps/train2017/), and the same for val2017"
    )
    LABELS = {value: label for label, value in enumerate(USED_VALUES)} | {VOID_LABEL: VOID_LABEL}
    descriptor = COCO_STUFF

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        return {split: self._pairs_of(f"{split}2017") for split in ("train", "val")}

    def _pairs_of(self, directory: str) -> dict[str, Pair]:
        candidates = [self.source / name / directory for name in ("annotations", "stuffthingmaps")]
        masks = next(filter(Path.is_dir, candidates), candidates[0])
        return pairs_by_stem(self.source / "images" / directory, masks)
