"""ADE20K scene-parsing benchmark: 20,210 training and 2,000 validation images, 150 classes.

Label 0, "other", is stored as void, and the ids 1..150 are kept. A network therefore has 151
outputs, of which output 0 is never a target.
Source: Zhou et al. 2017; MIT Scene Parsing Challenge 2016.
"""

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, pairs_by_stem
from deeplab_jax.data.descriptors import ADE20K
from deeplab_jax.labels import VOID_LABEL

DIRECTORIES = {"train": "training", "val": "validation"}


class Ade20k(PairedFilesBuilder):
    """Reads ADE20K from `images/` and `annotations/`, each with `training/` and `validation/`."""

    ROOTS = (".", "ADEChallengeData2016")
    LANDMARK = "annotations"
    LAYOUT = (
        "an ADE20K source contains images/ and annotations/, each with training/ and validation/"
    )
    LABELS = {0: VOID_LABEL} | {value: value for value in range(1, ADE20K.num_classes)}
    descriptor = ADE20K

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        images, masks = self.source / "images", self.source / "annotations"
        return {
            split: pairs_by_stem(images / directory, masks / directory)
            for split, directory in DIRECTORIES.items()
        }
