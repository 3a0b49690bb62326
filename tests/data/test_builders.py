import functools

import numpy as np
import pytest

from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.registry import BUILDERS
from deeplab_jax.data.codecs import encode_png
from deeplab_jax.data.descriptors import CITYSCAPES_LABEL_IDS, COCO_STUFF, PASCAL_CONTEXT
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError


@pytest.fixture
def raw(tmp_path, save):
    """Writes an image and a mask that holds the given values."""

    def write(image: str, mask: str, values, size=(6, 8)) -> None:
        label = np.resize(np.array(values, np.uint8), size)
        if image:
            save(image, np.full((*size, 3), label.sum() % 251, np.uint8))
        if mask:
            save(mask, label)

    return write


@pytest.fixture
def prepared(tmp_path, reporter):
    """Prepares the source and returns a function that opens a split."""

    def run(name: str, source=tmp_path, skip_bad=False, **options):
        data_dir = tmp_path / "prepared"
        make = functools.partial(
            BUILDERS[name], data_dir=data_dir, source=source, reporter=reporter, **options
        )
        preparation = prepare(make, skip_bad=skip_bad, reporter=reporter)
        return preparation, functools.partial(open_dataset, name, data_dir)

    return run


def values(dataset, index=0) -> list[int]:
    return np.unique(dataset[index]["label"]).tolist()


def test_camvid(raw, prepared):
    raw("train/b.png", "trainannot/b.png", [0, 10, 11])
    raw("train/a.png", "trainannot/a.png", [3])
    raw("val/c.png", "valannot/c.png", [11])
    preparation, open_split = prepared("camvid")
    assert list(preparation.statistics) == ["train", "val"]
    train = open_split("train")
    assert [train[index]["image_id"] for index in range(2)] == ["a", "b"]
    assert values(train, 1) == [0, 10, 255]
    assert values(open_split("val")) == [255]
    assert preparation.statistics["train"].class_pixels[3] == 48


def test_cityscapes(raw, prepared):
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        frame = f"{city}_000000_000019"
        mask = f"gtFine/{split}/{city}/{frame}_gtFine_labelIds.png"
        raw(f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png", mask, [0, 7, 33, 29, 4])
    preparation, open_split = prepared("cityscapes")
    assert list(preparation.statistics) == ["train", "val"]
    val = open_split("val")
    assert val[0]["image_id"] == "ulm_000000_000019"
    assert values(val) == [0, 18, 255]
    assert CITYSCAPES_LABEL_IDS[18] == 33


def test_cityscapes_with_coarse_annotations(raw, prepared):
    for split, city, truth in (
        ("train", "aachen", "gtFine"),
        ("train", "aachen", "gtCoarse"),
        ("val", "ulm", "gtFine"),
        ("train_extra", "bonn", "gtCoarse"),
    ):
        frame = f"{city}_000000_000019"
        mask = f"{truth}/{split}/{city}/{frame}_{truth}_labelIds.png"
        value = 7 if truth == "gtFine" else 26
        raw(f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png", mask, [0, value])
    preparation, open_split = prepared("cityscapes")
    assert list(preparation.statistics) == ["train", "val", "train_extra"]
    assert values(open_split("train")) == [0, 255]
    assert values(open_split("train_extra")) == [13, 255]
    assert len(open_split("train+val+train_extra")) == 3


@pytest.mark.parametrize(
    ("root", "masks"), [("", "annotations"), ("dataset/", "annotations"), ("", "stuffthingmaps")]
)
def test_coco_stuff(raw, prepared, root, masks):
    """Of the raw values 11 (street sign) is gone, so that 12 is the twelfth class."""
    for split in ("train2017", "val2017"):
        raw(
            f"{root}images/{split}/000000000009.jpg",
            f"{root}{masks}/{split}/000000000009.png",
            [0, 10, 12, 91, 181, 255],
        )
    _, open_split = prepared("coco_stuff")
    assert values(open_split("val")) == [0, 10, 11, 80, 170, 255]
    assert [COCO_STUFF.class_names[label] for label in (0, 10, 11, 79, 80, 170)] == [
        "person",
        "fire hydrant",
        "stop sign",
        "toothbrush",
        "banner",
        "wood",
    ]


def test_coco_stuff_refuses_classes_that_no_image_holds(raw, prepared):
    raw("images/train2017/1.jpg", "annotations/train2017/1.png", [0, 11])
    raw("images/val2017/1.jpg", "annotations/val2017/1.png", [0])
    with pytest.raises(
        DeepLabError, match=r"1.png: illegal mask value 11 \(24 pixels\); legal: classes 0"
    ):
        prepared("coco_stuff")


@pytest.fixture
def lists(tmp_path):
    """Writes the lists of train and val: image a, then b."""

    def write(directory: str, line: str = "{}") -> None:
        (tmp_path / directory).mkdir(parents=True)
        for split, stem in (("train", "a"), ("val", "b")):
            text = line.format(stem, stem) + "\n"
            (tmp_path / directory / f"{split}.txt").write_text(text)

    return write


@pytest.mark.parametrize(
    ("masks", "listed", "grass"),
    [
        ("59_context_labels", "ImageSets/Main", 36),
        # In the order of the alphabet.
        ("SegmentationClassContext", "ImageSets/SegmentationContext", 29),
    ],
)
def test_pascal_context_of_either_numbering(raw, lists, prepared, masks, listed, grass):
    root = "VOCdevkit/VOC2010/"
    lists(root + listed)
    for stem in "ab":
        raw(f"{root}JPEGImages/{stem}.jpg", f"{root}{masks}/{stem}.png", [0, 1, grass, 59])
    _, open_split = prepared("pascal_context")
    found = values(open_split("val"))
    assert [PASCAL_CONTEXT.class_names[label] for label in found] == [
        "background",
        "aeroplane",
        "grass",
        "wood",
    ]
    assert open_split("train")[0]["image_id"] == "a"


@pytest.mark.parametrize("root", ["", "pascal_person_part/"])
def test_pascal_person_part(raw, lists, prepared, root):
    lists(
        f"{root}pascal_person_part_trainval_list",
        "/JPEGImages/{}.jpg /pascal_person_part_gt/{}.png",
    )
    for stem in "ab":
        raw(f"JPEGImages/{stem}.jpg", f"{root}pascal_person_part_gt/{stem}.png", [0, 1, 6, 255])
    preparation, open_split = prepared("pascal_person_part")
    assert {name: counts.num_images for name, counts in preparation.statistics.items()} == {
        "train": 1,
        "val": 1,
    }
    assert values(open_split("val")) == [0, 1, 6, 255]
    assert open_split("val").descriptor.class_names[5] == "upper legs"


@pytest.mark.parametrize("root", ["", "ADEChallengeData2016/"])
def test_ade20k(raw, prepared, root):
    for split in ("training", "validation"):
        raw(f"{root}images/{split}/x.jpg", f"{root}annotations/{split}/x.png", [0, 1, 150])
    _, open_split = prepared("ade20k")
    assert open_split("val").descriptor.num_classes == 151
    assert values(open_split("val")) == [1, 150, 255]


@pytest.fixture
def voc(tmp_path, raw):
    """Four images: a and b train, c val, d only in the augmented masks."""
    root = "VOCdevkit/VOC2012/"
    for stem, value in zip("abcd", (1, 2, 3, 4), strict=True):
        raw(f"{root}JPEGImages/{stem}.jpg", f"{root}SegmentationClassAug/{stem}.png", [value, 20])
        if stem != "d":
            raw("", f"{root}SegmentationClass/{stem}.png", [value, 255])
    lists = tmp_path / root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c \n\n")
    return lists


def test_voc_takes_val_from_the_fine_masks(voc, prepared, reporter):
    preparation, open_split = prepared("voc_segmentation")
    numbers = {split: counts.num_images for split, counts in preparation.statistics.items()}
    assert numbers == {"train": 2, "val": 1, "train_aug": 3}
    assert values(open_split("train")) == [1, 255]
    assert values(open_split("val")) == [3, 255]
    augmented = open_split("train_aug")
    assert [augmented[index]["image_id"] for index in range(3)] == ["a", "b", "d"]
    assert values(augmented) == [1, 20]
    assert len(open_split("train+val")) == 3
    assert not reporter.warnings


def test_voc_takes_val_from_augmented_masks_only_when_asked(voc, prepared, reporter):
    (voc / "trainaug.txt").write_text("/JPEGImages/d.jpg /SegmentationClassAug/d.png\n")
    preparation, open_split = prepared("voc_segmentation", aug_val_masks=True)
    assert values(open_split("val")) == [3, 20]
    assert preparation.statistics["train_aug"].num_images == 1
    assert "masks of val are read from SegmentationClassAug" in reporter.warnings[0]


def test_originals_are_kept_byte_for_byte(voc, prepared, tmp_path):
    _, open_split = prepared("voc_segmentation")
    stored = open_split("train")._source[0]
    original = tmp_path / "VOCdevkit/VOC2012/JPEGImages/a.jpg"
    assert stored["image"] == original.read_bytes()
    assert stored["label"] == encode_png(open_split("train")[0]["label"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("camvid", r"no train/ in it; a CamVid source contains train/, trainannot/"),
        ("voc_segmentation", "no JPEGImages/ in it"),
        ("cityscapes", "no leftImg8bit/ in it"),
        ("ade20k", "no annotations/ in it"),
        ("coco_stuff", "no images/ in it"),
        ("coco_voc", r"no annotations/ in it; a COCO source contains train2017/"),
        ("pascal_context", "no JPEGImages/ in it; a PASCAL-Context source"),
        ("pascal_person_part", "no JPEGImages/ in it; a PASCAL-Person-Part source"),
        ("folder", r"no images found; the folder contains no files, .*contains images/ and masks/"),
    ],
)
def test_a_wrong_source_error_describes_the_expected_layout(prepared, name, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        prepared(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("pascal_context", r"no 59_context_labels/ in it.*\(or SegmentationClassContext/\)"),
        ("pascal_person_part", "no pascal_person_part_gt/ in it"),
    ],
)
def test_images_without_their_masks(raw, prepared, name, complaint):
    raw("JPEGImages/a.jpg", "", [0])
    with pytest.raises(DeepLabError, match=complaint):
        prepared(name)


@pytest.mark.parametrize(
    ("name", "directory", "numbers"),
    [
        ("camvid", "data/camvid", {"train": 367, "val": 101}),
        ("voc_segmentation", "data/voc2012", {"train": 437, "val": 112}),
    ],
)
def test_real_data_sets(shared, tmp_path, name, directory, numbers):
    builder = BUILDERS[name](source=shared / directory, data_dir=tmp_path)
    image_ids = builder.image_ids()
    assert {split: len(names) for split, names in image_ids.items()} == numbers
    seen = set()
    for image_id in image_ids["val"][::8]:
        seen |= set(np.unique(builder.load("val", image_id).label).tolist())
    assert 255 in seen
    assert len(seen) >= 8
    assert max(seen - {255}) < builder.descriptor.num_classes
