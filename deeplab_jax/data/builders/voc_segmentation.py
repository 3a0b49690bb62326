"""PASCAL VOC 2012 segmentation, optionally with SBD, the Semantic Boundaries Dataset.

Source: Everingham et al. 2015; Hariharan et al. 2011 for `SegmentationClassAug`.
"""

from typing import Any

from deeplab_jax.data.builders.paired_files import ListedFilesBuilder, Pair, listed_stems
from deeplab_jax.data.descriptors import VOC
from deeplab_jax.data.masks import identity_labels
from deeplab_jax.listing import list_images

LISTS = "ImageSets/Segmentation"
MASKS, AUG_MASKS = "SegmentationClass", "SegmentationClassAug"
AUG_LISTS = ("train_aug.txt", "trainaug.txt")


class VocSegmentation(ListedFilesBuilder):
    """Reads VOC from `JPEGImages/`, `SegmentationClass/` and lists in `ImageSets/Segmentation/`.

    If there is a directory `SegmentationClassAug/`, its masks form the split train_aug. This split
    contains the images in the list `train_aug.txt` or `trainaug.txt`. Without such a list, it
    contains all images with a mask except those of val. The masks of val are read from
    `SegmentationClass/`, or from `SegmentationClassAug/` if `aug_val_masks` is True.
    """

    ROOTS = (".", "VOCdevkit/VOC2012", "VOC2012")
    LAYOUT = f"a VOC source contains JPEGImages/, {MASKS}/ and {LISTS}/train.txt, val.txt"
    LABELS = identity_labels(VOC.num_classes)
    descriptor = VOC

    def __init__(self, *, aug_val_masks: bool = False, **kwargs: Any) -> None:
        self._val_masks = AUG_MASKS if aug_val_masks else MASKS
        super().__init__(**kwargs)
        if aug_val_masks:
            self.reporter.warning(
                f"the masks of val are read from {AUG_MASKS}: the mean IoU is not comparable with "
                "published results"
            )

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        lists, aug_masks = self.source / LISTS, self.source / AUG_MASKS
        train, val = (listed_stems(lists / name) for name in ("train.txt", "val.txt"))
        pairs = {
            "train": self.listed_pairs(train, self.source / MASKS),
            "val": self.listed_pairs(val, self.source / self._val_masks),
        }
        if aug_masks.is_dir():
            named = [lists / name for name in AUG_LISTS if (lists / name).is_file()]
            augmented = listed_stems(named[0]) if named else self._all_but(val)
            pairs["train_aug"] = self.listed_pairs(augmented, aug_masks)
        return pairs

    def _all_but(self, held_out: list[str]) -> list[str]:
        """Returns the stems of all masks in `SegmentationClassAug/` except those in `held_out`.

        Args:
          held_out: stems (names without file extension) of the masks to leave out.
        """
        stems = (path.stem for path in list_images(self.source / AUG_MASKS).images)
        excluded = set(held_out)
        return [stem for stem in stems if stem not in excluded]
