"""PASCAL-Person-Part: 1,716 train and 1,817 val images of VOC 2010, six parts and background.

Source: Chen et al. 2014 (Detect What You Can); DeepLab v2 (arXiv 1606.00915), section 4.3, states
the parts and the numbers of images.
"""

from deeplab_jax.data.builders.paired_files import ListedFilesBuilder
from deeplab_jax.data.descriptors import PASCAL_PERSON_PART
from deeplab_jax.data.masks import identity_labels

MASKS, LISTS = "pascal_person_part_gt", "pascal_person_part_trainval_list"
UNPACKED = "pascal_person_part"


class PascalPersonPart(ListedFilesBuilder):
    """Reads `JPEGImages/` of VOC 2010 and the masks and lists published by the DeepLab authors."""

    ROOTS = (".", "VOCdevkit/VOC2010", "VOC2010")
    MASKS = (MASKS, f"{UNPACKED}/{MASKS}")
    LISTS = (LISTS, f"{UNPACKED}/{LISTS}")
    LAYOUT = (
        f"a PASCAL-Person-Part source contains JPEGImages/ of VOC 2010, {UNPACKED}/{MASKS}/ and "
        f"{UNPACKED}/{LISTS}/train.txt, val.txt"
    )
    LABELS = identity_labels(PASCAL_PERSON_PART.num_classes)
    descriptor = PASCAL_PERSON_PART
