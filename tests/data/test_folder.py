import functools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError

LABEL = np.array([[0, 1, 2, 255]] * 3, np.uint8)
IMAGE = np.zeros((3, 4, 3), np.uint8)


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("floor\ncat\ndog\n")
    return path


@pytest.fixture
def prepared(tmp_path, reporter):
    def run(name="folder", skip_bad=False, **options):
        data_dir = tmp_path / "prepared"
        make = functools.partial(
            Folder, source=tmp_path, data_dir=data_dir, reporter=reporter, **options
        )
        prepare(make, skip_bad=skip_bad, reporter=reporter)
        return functools.partial(open_dataset, name, data_dir)

    return run


def test_subfolders_give_the_splits(save, classes, prepared):
    for split, names in {"train": ["a", "deep/b"], "val": ["a"]}.items():
        for name in names:
            save(f"images/{split}/{name}.jpg", IMAGE)
            save(f"masks/{split}/{name}.png", LABEL)
    open_split = prepared()
    train = open_split("train")
    assert [train[index]["image_id"] for index in range(2)] == ["a", "deep/b"]
    assert np.array_equal(train[0]["label"], LABEL)
    assert train.descriptor.class_names == ("floor", "cat", "dog")
    assert len(open_split("val")) == 1


def test_a_fifth_becomes_val_and_stays_it(save, classes, prepared, reporter, tmp_path):
    def names_of_val(number, configuration):
        for index in range(number):
            save(f"images/{index}.png", IMAGE)
            save(f"elsewhere/{index}.png", LABEL)
        config = tfds.core.BuilderConfig(name=configuration)
        open_split = prepared(
            f"folder/{configuration}", masks=tmp_path / "elsewhere", config=config
        )
        val = open_split("val")
        assert len(val) + len(open_split("train")) == number
        return {val[index]["image_id"] for index in range(len(val))}

    few, many = names_of_val(20, "few"), names_of_val(60, "many")
    assert "20% by" in reporter.messages[0] or "chosen by a hash" in reporter.messages[0]
    assert 5 <= len(many) <= 20
    assert few == {name for name in many if int(name) < 20}


@pytest.mark.parametrize("number", [2, 3])
def test_even_two_images_give_a_val(save, classes, prepared, number):
    for index in range(number):
        save(f"images/{index}.png", IMAGE)
        save(f"masks/{index}.png", LABEL)
    open_split = prepared()
    assert len(open_split("train")) >= 1
    assert len(open_split("val")) >= 1


@pytest.mark.parametrize(("values", "expected"), [([0, 255], [0, 1]), ([0, 1, 255], [0, 1, 255])])
def test_binary_masks_are_understood_from_the_whole_set(
    save, prepared, reporter, tmp_path, values, expected
):
    (tmp_path / "classes.txt").write_text("other\nroad\n")
    for index in range(6):
        save(f"images/{index}.png", IMAGE)
        save(f"masks/{index}.png", np.resize(np.uint8(values[-2:] if index else values), (3, 4)))
    train = prepared()("train+val")
    found = np.unique([train[index]["label"] for index in range(6)])
    assert found.tolist() == expected
    assert any("255 is 'road'" in text for text in reporter.messages) == (len(values) == 2)


def test_painted_masks(save, prepared, tmp_path):
    (tmp_path / "colors.json").write_text(
        '{"floor": [0, 0, 0], "cat": [255, 0, 0], "void": [9, 9, 9]}'
    )
    for name in ("train", "val"):
        save(f"images/{name}/x.png", IMAGE)
        save(f"masks/{name}/x.png", np.resize(np.uint8([[255, 0, 0], [9, 9, 9]]), (3, 4, 3)))
    dataset = prepared(color_map=tmp_path / "colors.json")("val")
    assert dataset.descriptor.palette == ((0, 0, 0), (255, 0, 0))
    assert np.unique(dataset[0]["label"]).tolist() == [1, 255]


@pytest.mark.parametrize(
    ("image", "mask", "complaint"),
    [
        ("images/train/x.png", None, r"masks/train/x\.png: no such file"),
        (None, "masks/train/x.png", r"images/train/x\.\*: no such file"),
    ],
)
def test_halves_without_their_other_are_listed(save, classes, prepared, image, mask, complaint):
    for split in ("train", "val"):
        save(f"images/{split}/a.png", IMAGE)
        save(f"masks/{split}/a.png", LABEL)
    save(image or mask, LABEL)
    with pytest.raises(DeepLabError, match=complaint):
        prepared()


def test_two_files_of_one_name_are_refused(save, classes, prepared):
    save("images/a.png", IMAGE)
    save("images/a.jpg", IMAGE)
    save("masks/a.png", LABEL)
    with pytest.raises(DeepLabError, match=r"a\.png and a\.jpg are of one name"):
        prepared()


def test_sixteen_bit_images_use_the_given_range(save, classes, prepared):
    for split in ("train", "val"):
        save(f"images/{split}/a.png", np.full((3, 4), 1000, np.uint16))
        save(f"masks/{split}/a.png", LABEL)
    val = prepared(intensity_range=(0.0, 2000.0))("val")
    assert np.unique(val[0]["image"]).tolist() == [128]
    assert val.descriptor.intensity_range == (0, 2000)


def test_sixteen_bit_images_without_a_range_use_their_own(save, classes, prepared):
    levels = np.arange(0, 60_000, 5000, np.uint16).reshape(3, 4)
    for split in ("train", "val"):
        save(f"images/{split}/a.png", levels)
        save(f"masks/{split}/a.png", LABEL)
    val = prepared()("val")
    assert val[0]["image"][..., 0].tolist() == np.rint(levels * (255 / 55_000)).tolist()
    assert val.descriptor.intensity_range is None


@pytest.mark.parametrize("given", [(5.0, 5.0), (5.0, -5.0)])
def test_an_empty_range_is_refused(save, classes, prepared, given):
    save("images/a.png", IMAGE)
    save("masks/a.png", LABEL)
    with pytest.raises(DeepLabError, match="give LOW below HIGH"):
        prepared(intensity_range=given)
