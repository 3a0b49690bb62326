"""Cityscapes: 2,975 train and 500 val images with fine annotations, 2048 × 1024 (width × height).

The split `train_extra` is optional. It contains 19,998 images with coarse annotations. The 1,525
test images have no public labels and are not prepared.
Source: Cordts et al. 2016 (arXiv:1604.01685).
"""

from pathlib import Path

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, files_by_name
from deeplab_jax.data.descriptors import CITYSCAPES, CITYSCAPES_LABEL_IDS
from deeplab_jax.labels import VOID_LABEL

IMAGES, IMAGE_ENDING = "leftImg8bit", "_leftImg8bit"
FINE, COARSE = "gtFine", "gtCoarse"
SPLITS = {"train": FINE, "val": FINE, "train_extra": COARSE}


class Cityscapes(PairedFilesBuilder):
    """Reads images from `leftImg8bit/SPLIT/CITY/`, and labelIds masks from `gtFine/SPLIT/CITY/`.

    The masks of the optional split `train_extra` are read from `gtCoarse/`.
    """

    LANDMARK = IMAGES
    LAYOUT = (
        "a Cityscapes source contains leftImg8bit/ and gtFine/, each with train/CITY/ and val/CITY/"
    )
    # labelIds are 0..33. License plates have the id −1, which is 255 in an 8-bit file.
    LABELS = dict.fromkeys((*range(34), 255), VOID_LABEL) | {
        label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_LABEL_IDS)
    }
    descriptor = CITYSCAPES

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        return {
            split: self._pairs_of(split, truth)
            for split, truth in SPLITS.items()
            if truth == FINE or (self.source / truth / split).is_dir()
        }

    def _pairs_of(self, split: str, truth: str) -> dict[str, Pair]:
        def frame_of(image: Path) -> str:
            return image.stem.removesuffix(IMAGE_ENDING)

        def mask_of(image: Path) -> Path:
            city = self.source / truth / split / image.parent.name
            return city / f"{frame_of(image)}_{truth}_labelIds.png"

        frames = files_by_name(self.source / IMAGES / split, frame_of)
        return {frame: Pair(image, mask_of(image)) for frame, image in frames.items()}

    def directories(self) -> set[Path]:
        return {
            self.source / kind / split
            for split in self.image_ids()
            for kind in (IMAGES, SPLITS[split])
        }
