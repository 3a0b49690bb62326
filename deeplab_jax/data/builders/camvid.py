"""CamVid in the splits of the SegNet tutorial: 367 train, 101 val and 233 test frames.

Frames are 480 × 360 pixels (width × height).
Source: Brostow et al. 2009; Badrinarayanan et al. 2017 (arXiv:1511.00561).
"""

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, pairs_by_stem
from deeplab_jax.data.descriptors import CAMVID
from deeplab_jax.labels import VOID_LABEL


class Camvid(PairedFilesBuilder):
    """Reads CamVid from `train/`, `trainannot/`, `val/`, `valannot/`, `test/` and `testannot/`.

    All splits but train are optional.
    """

    LANDMARK = "train"
    LAYOUT = (
        "a CamVid source contains train/, trainannot/, and optionally val/, valannot/, test/, "
        "testannot/"
    )
    LABELS = {value: value for value in range(CAMVID.num_classes)} | {11: VOID_LABEL}
    descriptor = CAMVID

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        return {
            split: pairs_by_stem(self.source / split, self.source / f"{split}annot")
            for split in ("train", "val", "test")
        }
