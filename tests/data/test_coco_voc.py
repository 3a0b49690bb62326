import functools
import json

import numpy as np
import PIL.Image
import pytest

from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.coco_voc import CocoVoc, draw_objects
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError

CATEGORIES = [
    {"id": 1, "name": "person"},
    {"id": 3, "name": "car"},
    {"id": 7, "name": "train"},
    {"id": 17, "name": "cat"},
    {"id": 44, "name": "bottle"},
    {"id": 65, "name": "bed"},
    {"id": 67, "name": "dining table"},
]
PERSON, CAR, BOTTLE, TABLE = 15, 7, 5, 11
SIZE = (40, 50)


def box(category: int, left: int, top: int, right: int, bottom: int, **fields) -> dict:
    polygon = [left, top, right, top, right, bottom, left, bottom]
    area = (right - left) * (bottom - top)
    return {"category_id": category, "segmentation": [polygon], "area": area, "iscrowd": 0} | fields


def crowd(category: int, mask: np.ndarray) -> dict:
    """Run lengths, column by column; they begin outside."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *([0] if flat[0] else []), *changes, flat.size]).tolist()
    runs = {"counts": counts, "size": list(mask.shape)}
    area = int(mask.sum())
    return {"category_id": category, "segmentation": runs, "area": area, "iscrowd": 1}


@pytest.fixture
def coco(tmp_path, save):
    """Writes a source: every image's objects, by split and number."""

    def write(splits: dict[str, dict[int, list[dict]]], directory: str = "") -> None:
        (tmp_path / "annotations").mkdir()
        for split, images in splits.items():
            for number in images:
                pixels = np.full((*SIZE, 3), number, np.uint8)
                save(f"{directory}{split}2017/{number:012}.jpg", pixels)
            content = {
                "images": [{"id": n, "file_name": f"{n:012}.jpg"} for n in reversed(images)],
                "annotations": [
                    {"image_id": n, **thing} for n, things in images.items() for thing in things
                ],
                "categories": CATEGORIES,
            }
            path = tmp_path / f"annotations/instances_{split}2017.json"
            path.write_text(json.dumps(content))

    return write


@pytest.mark.parametrize("directory", ["", "images/"])
def test_images_of_large_voc_objects_are_kept(coco, tmp_path, reporter, directory):
    half = np.zeros(SIZE, bool)
    half[:, 30:] = True
    train = {
        1: [box(1, 0, 0, 50, 20)],  # 1,000 pixels of a person: not more
        2: [box(1, 0, 0, 50, 20), box(44, 10, 10, 12, 12)],
        3: [box(65, 0, 0, 50, 40)],  # a bed alone
        4: [crowd(1, np.ones(SIZE, bool))],
        5: [box(3, 0, 0, 40, 30), box(65, 30, 20, 50, 40), crowd(1, half)],
        6: [],
    }
    coco({"train": train, "val": {7: [], 8: [box(67, 0, 0, 5, 5)]}}, directory)
    make = functools.partial(
        CocoVoc, data_dir=tmp_path / "prepared", source=tmp_path, reporter=reporter
    )
    prepare(make, reporter=reporter)
    train_set = open_dataset("coco_voc", tmp_path / "prepared", "train")
    assert [train_set[index]["image_id"] for index in range(len(train_set))] == [
        f"{number:012}" for number in (2, 5)
    ]
    expected = np.zeros(SIZE, np.uint8)
    expected[:20] = PERSON
    expected[10:12, 10:12] = BOTTLE
    assert np.array_equal(train_set[0]["label"], expected)
    expected = np.zeros(SIZE, np.uint8)
    expected[:, 30:] = 255
    expected[:30, :40] = CAR
    assert np.array_equal(train_set[1]["label"], expected)
    val = open_dataset("coco_voc", tmp_path / "prepared", "val")
    assert [int((val[index]["label"] == TABLE).sum()) for index in range(2)] == [0, 25]
    assert val.descriptor.class_names[TABLE] == "diningtable"


def test_the_smaller_object_is_in_front_whatever_the_order():
    large, small = box(1, 0, 0, 30, 30, label=1), box(3, 10, 10, 20, 20, label=2)
    for things in ([large, small], [small, large]):
        label, _ = draw_objects(things, SIZE)
        assert (label[10:20, 10:20] == 2).all()
        assert (label == 1).sum() == 800


def test_parts_of_one_object_add_up():
    thing = box(1, 0, 0, 10, 10, label=4)
    thing["segmentation"].append([20.0, 20, 30, 20, 30, 25, 20, 25])
    assert (draw_objects([thing], SIZE)[0] == 4).sum() == 150


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        ({"counts": "abc", "size": list(SIZE)}, "compressed"),
        ({"counts": [5], "size": [1, 5]}, "their size must be"),
        ([[1, 2, 3]], "reshape"),
    ],
)
def test_an_annotation_that_cannot_be_drawn_names_the_image(
    coco, tmp_path, segmentation, complaint
):
    thing = {"category_id": 1, "segmentation": segmentation, "area": 5000, "iscrowd": 0}
    coco({"train": {3: [thing]}, "val": {4: []}})
    builder = CocoVoc(source=tmp_path, data_dir=tmp_path / "prepared")
    (problem,) = builder.problems()
    assert "000000000003.jpg: the annotation of this image cannot" in problem.reason
    assert complaint in problem.reason


def test_omitted_and_empty_annotations_are_counted(coco, tmp_path, reporter):
    outside = box(1, 60, 0, 70, 10)
    coco(
        {
            "train": {1: [box(1, 0, 0, 50, 30), outside, box(65, 0, 0, 9, 9)], 2: []},
            "val": {3: [box(3, 0, 0, 9, 9)], 4: [outside, {**outside, "segmentation": []}]},
        }
    )
    path = tmp_path / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 99, **outside})
    path.write_text(json.dumps(content))
    make = functools.partial(CocoVoc, data_dir=tmp_path / "prepared", source=tmp_path)
    notes = prepare(make, reporter=reporter).notes
    counts = {note.split(": ", 1)[1]: int(note.split()[0]) for note in notes if "left out" in note}
    assert counts == {
        "annotations of train with other classes than VOC's": 1,
        "images of train with too few object pixels": 1,
        "annotations of val for images not in the file": 1,
    }
    (empty,) = [note for note in notes if "no pixel" in note]
    assert empty.startswith("3 x ")
    assert f"train/{1:012}, val/{4:012}" in empty


@pytest.fixture
def turned_photo(coco, tmp_path, save):
    """Gives the image of an object in the upper left corner an EXIF orientation, and a size."""

    def write(orientation: int, declared: tuple[int, int] | None) -> None:
        coco({split: {1: [box(3, 0, 0, 40, 30)]} for split in ("train", "val")})
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        for split in ("train", "val"):
            save(f"{split}2017/{1:012}.jpg", np.zeros((*SIZE, 3), np.uint8), exif=exif)
            path = tmp_path / f"annotations/instances_{split}2017.json"
            content = json.loads(path.read_text())
            if declared:
                content["images"][0] |= {"height": declared[0], "width": declared[1]}
            path.write_text(json.dumps(content))

    return write


ON_STORED = np.zeros(SIZE, np.uint8)
ON_STORED[:30, :40] = CAR
ON_DISPLAYED = np.zeros(SIZE[::-1], np.uint8)
ON_DISPLAYED[:30, :40] = CAR


@pytest.mark.parametrize(
    ("orientation", "declared", "drawn_on", "expected"),
    [
        (1, SIZE, None, ON_STORED),
        (6, SIZE, None, np.rot90(ON_STORED, -1)),
        (6, SIZE[::-1], None, ON_DISPLAYED),
        (6, None, "displayed", ON_DISPLAYED),
        (6, None, "stored", np.rot90(ON_STORED, -1)),
        (3, SIZE, "stored", np.rot90(ON_STORED, 2)),
        (3, SIZE, "displayed", ON_STORED),
    ],
)
def test_objects_lie_on_the_upright_image(
    turned_photo, tmp_path, orientation, declared, drawn_on, expected
):
    turned_photo(orientation, declared)
    builder = CocoVoc(source=tmp_path, data_dir=tmp_path, masks_drawn_on=drawn_on)
    assert np.array_equal(builder.load("val", f"{1:012}").label, expected)


@pytest.mark.parametrize(
    ("orientation", "declared", "complaint"),
    [
        (3, SIZE, "EXIF orientation 3.*--masks_drawn_on"),
        (6, None, "EXIF orientation 6.*--masks_drawn_on"),
        (1, SIZE[::-1], r"state 50x40 \(height x width\) .*, but the image file is 40x50"),
        (1, (80, 100), "the annotations state 80x100"),
    ],
)
def test_objects_that_may_lie_elsewhere_are_refused(
    turned_photo, tmp_path, orientation, declared, complaint
):
    turned_photo(orientation, declared)
    builder = CocoVoc(source=tmp_path, data_dir=tmp_path)
    assert len(builder.problems()) == 2
    with pytest.raises(DeepLabError, match=complaint):
        builder.load("train", f"{1:012}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "instances_train2017.json: invalid JSON"),
        ('{"images": []}', "the key 'categories' is missing"),
        ("[]", r"not a file of COCO instance annotations \(list indices must be"),
    ],
)
def test_a_non_coco_annotation_file_is_refused(tmp_path, text, complaint):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text(text)
    with pytest.raises(DeepLabError, match=complaint):
        CocoVoc(source=tmp_path, data_dir=tmp_path)


def test_a_missing_split_is_reported(tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DeepLabError, match=r"train2017.json: cannot read the annotations"):
        CocoVoc(source=tmp_path, data_dir=tmp_path)
