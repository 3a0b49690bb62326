"""CamVid as the SegNet tutorial splits it: 367 train, 101 val and 233 test frames of 480 × 360.

Source: Brostow et al. 2009; Badrinarayanan et al. 2017 (arXiv:1511.00561).
"""

import numpy as np

from deeplab_jax.data.builders.paired_files import (
    Pair,
    PairedFilesBuilder,
    image_files,
    pairs_by_name,
)
from deeplab_jax.data.descriptors import CAMVID, Descriptor
from deeplab_jax.data.masks import MaskFile, read_mask
from deeplab_jax.labels import IGNORE_LABEL

LABELS = {**{value: value for value in range(CAMVID.num_classes)}, 11: IGNORE_LABEL}


class Camvid(PairedFilesBuilder, skip_registration=True):
    """Reads `train/` and `trainannot/`, and so on; a split that is not there is left out."""

    LANDMARK = "train"
    LAYOUT = "a CamVid source holds train/, trainannot/, val/, valannot/ (test/, testannot/)"

    @property
    def descriptor(self) -> Descriptor:
        return CAMVID

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        return {split: self._pairs_of(split) for split in ("train", "val", "test")}

    def _pairs_of(self, split: str) -> dict[str, Pair]:
        masks = self.source / f"{split}annot"
        return pairs_by_name(
            image_files(self.source / split),
            lambda image: image.stem,
            lambda image: masks / f"{image.stem}.png",
        )

    def read_label(self, mask: MaskFile) -> np.ndarray:
        return read_mask(mask, LABELS)
