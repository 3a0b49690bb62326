"""PASCAL-Context: 4,998 train and 5,105 val images of VOC 2010, 59 classes and background.

Source: Mottaghi et al. 2014; DeepLab v2 (arXiv 1606.00915), section 4.2, states the numbers of
images.
"""

import numpy as np

from deeplab_jax.data.builders.paired_files import ListedFilesBuilder
from deeplab_jax.data.descriptors import PASCAL_CONTEXT
from deeplab_jax.data.masks import MaskFile, identity_labels, read_mask
from deeplab_jax.labels import VOID_LABEL

# Directories of the masks of the dataset's authors, and of the masks of mmsegmentation. Their class
# indices differ: the authors start with VOC's classes; mmsegmentation sorts all classes by name.
AUTHORS, ALPHABETIC = "59_context_labels", "SegmentationClassContext"
NAMES = PASCAL_CONTEXT.class_names


class PascalContext(ListedFilesBuilder):
    """Reads the images of VOC 2010, and the masks and image lists of PASCAL-Context.

    The masks are those of the authors of PASCAL-Context or those of mmsegmentation. If there are no
    lists in `ImageSets/SegmentationContext`, the lists of VOC in `ImageSets/Main` are read.
    """

    ROOTS = (".", "VOCdevkit/VOC2010", "VOC2010")
    MASKS = (AUTHORS, ALPHABETIC)
    LISTS = ("ImageSets/SegmentationContext", "ImageSets/Main")
    LAYOUT = (
        f"a PASCAL-Context source contains JPEGImages/ of VOC 2010, {AUTHORS}/ (or {ALPHABETIC}/) "
        "and ImageSets/SegmentationContext/train.txt, val.txt (or ImageSets/Main/ of VOC)"
    )
    LABELS = identity_labels(PASCAL_CONTEXT.num_classes)
    ALPHABETIC_LABELS = {0: 0, VOID_LABEL: VOID_LABEL} | {
        value: NAMES.index(name) for value, name in enumerate(sorted(NAMES[1:]), start=1)
    }
    descriptor = PASCAL_CONTEXT

    def read_label(self, mask: MaskFile) -> np.ndarray:
        alphabetic = mask.path.parent.name == ALPHABETIC
        return read_mask(mask, self.ALPHABETIC_LABELS if alphabetic else self.LABELS)
