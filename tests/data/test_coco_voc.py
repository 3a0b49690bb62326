import functools
import json

import numpy as np
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
        label = draw_objects(things, SIZE)
        assert (label[10:20, 10:20] == 2).all()
        assert (label == 1).sum() == 800


def test_parts_of_one_object_add_up():
    thing = box(1, 0, 0, 10, 10, label=4)
    thing["segmentation"].append([20.0, 20, 30, 20, 30, 25, 20, 25])
    assert (draw_objects([thing], SIZE) == 4).sum() == 150


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        ({"counts": "abc", "size": list(SIZE)}, "compressed"),
        ({"counts": [5], "size": [1, 5]}, "another size"),
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
    assert "000000000003.jpg: its annotation cannot be drawn" in problem.reason
    assert complaint in problem.reason


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "instances_train2017.json: not JSON"),
        ('{"images": []}', "not COCO's instances: no 'categories'"),
    ],
)
def test_a_file_that_is_none_of_cocos(tmp_path, text, complaint):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text(text)
    with pytest.raises(DeepLabError, match=complaint):
        CocoVoc(source=tmp_path, data_dir=tmp_path)


def test_a_missing_split_is_told(tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DeepLabError, match=r"train2017.json: cannot read the annotations"):
        CocoVoc(source=tmp_path, data_dir=tmp_path)
