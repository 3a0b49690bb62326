import numpy as np
import PIL.Image
import pytest

from deeplab_jax.data import descriptors
from deeplab_jax.data.shapes import OUTLINES


@pytest.mark.parametrize(
    ("descriptor", "num_classes", "names"),
    [
        (descriptors.VOC, 21, {0: "background", 15: "person", 20: "tvmonitor"}),
        (descriptors.CAMVID, 11, {0: "Sky", 6: "SignSymbol", 10: "Bicyclist"}),
        (descriptors.CITYSCAPES, 19, {0: "road", 10: "sky", 18: "bicycle"}),
        (descriptors.ADE20K, 151, {0: "void", 1: "wall", 3: "sky", 150: "flag"}),
        (descriptors.COCO_STUFF, 171, {0: "person", 79: "toothbrush", 80: "banner", 170: "wood"}),
        (descriptors.PASCAL_CONTEXT, 60, {0: "background", 20: "tvmonitor", 59: "wood"}),
        (descriptors.PASCAL_PERSON_PART, 7, {0: "background", 1: "head", 6: "lower legs"}),
        (descriptors.SHAPES, 6, {0: "background", 5: "cross"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_descriptor(descriptor, num_classes, names):
    assert descriptor.num_classes == len(descriptor.palette) == num_classes
    assert len(set(descriptor.class_names)) == num_classes
    assert {index: descriptor.class_names[index] for index in names} == names


def test_shapes_are_labelled_in_the_order_of_their_outlines():
    assert tuple(OUTLINES) == descriptors.SHAPES.class_names[1:]


def test_generated_palette_is_that_of_voc():
    assert descriptors.bit_interleaved_palette(21) == descriptors.VOC.palette
    assert len(set(descriptors.bit_interleaved_palette(256))) == 256


def test_voc_palette_is_that_of_its_masks(shared):
    mask = PIL.Image.open(next((shared / "data/voc2012/SegmentationClass").glob("*.png")))
    on_disk = np.array(mask.getpalette()).reshape(-1, 3)[:21]
    assert np.array_equal(on_disk, descriptors.VOC.palette)


def test_cityscapes_label_ids():
    ids = dict(zip(descriptors.CITYSCAPES_LABEL_IDS, descriptors.CITYSCAPES.class_names))  # noqa: B905
    assert len(ids) == 19
    assert (ids[7], ids[11], ids[23], ids[26], ids[31]) == (
        "road",
        "building",
        "sky",
        "car",
        "train",
    )
