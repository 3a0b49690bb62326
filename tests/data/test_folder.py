import functools
import itertools
import math
import os
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.builders.folder_files import _side_by_side
from deeplab_jax.data.preparation import Preparation, prepare
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


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize("val", ["Val", "VAL", "Validation"])
def test_the_names_of_splits_may_have_capitals(save, classes, prepared, layout, val):
    for split, names in {"Train": "abc", val: "de", "Test": "f"}.items():
        for name in names:
            save(f"{layout.format(kind='images', split=split)}/{name}.jpg", IMAGE)
            save(f"{layout.format(kind='masks', split=split)}/{name}.png", LABEL)
    open_split = prepared()
    assert [len(open_split(split)) for split in ("train", "val", "test")] == [3, 2, 1]


def test_the_folder_of_the_masks_alone_may_give_the_splits(save, classes, prepared, reporter):
    for number, split in enumerate(["train", "train", "Valid", "test"]):
        save(f"images/{number}.png", IMAGE)
        save(f"masks/{split}/{number}_mask.png", LABEL)
    save("images/without.png", IMAGE)
    with pytest.raises(DeepLabError, match=r"images/without\.png: the image has no mask"):
        prepared()
    open_split = prepared(skip_bad=True)
    for split, names in {"train": ["0", "1"], "val": ["2"], "test": ["3"]}.items():
        dataset = open_split(split)
        assert [dataset[index]["image_id"] for index in range(len(dataset))] == names
    assert not any("chosen by a hash" in message for message in reporter.messages)


@pytest.mark.parametrize("mask", ["masks/{site}/{split}/{name}", "masks/{split}/{site}/{name}"])
def test_inner_folders_give_the_splits_if_all_images_are_in_one(
    save, classes, prepared, reporter, mask
):
    for number, (site, split) in enumerate(itertools.product("xy", ["train", "Validation"])):
        place = {"site": site, "split": split, "name": number}
        save("images/{site}/{split}/{name}.png".format(**place), IMAGE)
        save(f"{mask}.png".format(**place), LABEL)
    open_split = prepared()
    for split, names in {"train": ["x/0", "y/2"], "val": ["x/1", "y/3"]}.items():
        dataset = open_split(split)
        assert [dataset[index]["image_id"] for index in range(len(dataset))] == names
    assert not any("chosen by a hash" in message for message in reporter.messages)


@pytest.mark.parametrize("names", ["x/train/0 x/1 y/2", "x/test/0 y/test/1 y/test/2"])
def test_inner_folders_of_some_images_or_without_train_are_no_splits(
    save, classes, prepared, names
):
    for name in names.split():
        save(f"images/{name}.png", IMAGE)
        save(f"masks/{name}.png", LABEL)
    assert len(prepared()("train+val")) == 3


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


def test_images_that_would_all_become_val_give_a_train(save, classes, prepared):
    """The hashes of both names are multiples of 5."""
    for name in ("1", "2"):
        save(f"images/{name}.png", IMAGE)
        save(f"masks/{name}.png", LABEL)
    open_split = prepared()
    assert [len(open_split(split)) for split in ("train", "val")] == [1, 1]


@pytest.mark.parametrize("split", ["", "train/"])
def test_names_that_are_not_utf8_are_listed_as_problems(save, classes, prepared, split):
    for index in range(3):
        save(f"images/{split}{index}.png", IMAGE)
        save(f"masks/{split}{index}.png", LABEL)
    for folder in ("images", "masks"):
        save(f"{folder}/{split}0.png", LABEL if folder == "masks" else IMAGE).rename(
            classes.parent / folder / os.fsdecode(split.encode() + b"caf\xe9.png")
        )
    with pytest.raises(DeepLabError, match=r"caf\\udce9': the name .* is not in UTF-8"):
        prepared()


def test_masks_below_the_images_are_no_images_for_any_spelling(
    save, classes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        save(f"set/{name}.jpg", IMAGE)
        save(f"set/foo/{name}.png", LABEL)
    for source, masks in (("set", "set/foo"), ("set", tmp_path / "set/foo")):
        builder = Folder(source=source, masks=masks, classes=classes, data_dir=tmp_path / "out")
        assert sum(map(len, builder.image_ids().values())) == 3
        assert builder.problems() == []


def test_masks_below_the_usual_folder_of_images_are_no_images(save, classes, tmp_path):
    for name in "abc":
        save(f"images/{name}.png", IMAGE)
        save(f"images/foo/{name}.png", LABEL)
    options = {"source": tmp_path, "classes": classes, "data_dir": tmp_path / "out"}
    builder = Folder(masks=tmp_path / "images/foo", **options)
    assert sum(map(len, builder.image_ids().values())) == 3
    assert builder.problems() == []
    for folder in (tmp_path / "images", tmp_path):
        with pytest.raises(DeepLabError, match="all images are in the folder of the masks"):
            Folder(masks=folder, **options)


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
    assert any("read as class 'road'" in text for text in reporter.messages) == (len(values) == 2)


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
        (
            "images/train/x.png",
            None,
            r"images/train/x\.png: the image has no mask; .*masks/train/x\.png: no such file",
        ),
        (None, "masks/train/x.png", r"masks/train/x\.png: the mask has no image"),
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
    with pytest.raises(DeepLabError, match=r"a\.png and .*a\.jpg have the same name"):
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


@pytest.mark.parametrize(
    "given", [(5.0, 5.0), (5.0, -5.0), (0, math.inf), (-math.inf, 5), (0, math.nan)]
)
def test_an_empty_or_infinite_range_is_refused(save, classes, prepared, given):
    save("images/a.png", IMAGE)
    save("masks/a.png", LABEL)
    with pytest.raises(DeepLabError, match="first number must be below"):
        prepared(intensity_range=given)


def test_one_class_is_refused(save, prepared, tmp_path):
    save("images/a.png", IMAGE)
    save("masks/a.png", LABEL)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DeepLabError, match=r"classes\.txt: only the class 'cat'.*background"):
        prepared()
    (tmp_path / "colors.txt").write_text("255 0 0 cat\n9 9 9 void\n")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DeepLabError, match=r"colors\.txt: only the class 'cat'.*background"):
        prepared(color_map=tmp_path / "colors.txt")


OBJECT = np.uint8([[0, 255, 255, 0]] * 3)


def in_opacity(opacity, color=(7, 7, 7)):
    return np.dstack([np.full((*opacity.shape, 3), color, np.uint8), opacity])


@pytest.fixture
def two_masks(save, tmp_path, prepared):
    """Prepares two pairs of two classes and returns both labels."""
    (tmp_path / "classes.txt").write_text("other\nroad\n")

    def run(*masks, **options):
        for split, mask in zip(("train", "val"), masks, strict=True):
            save(f"images/{split}/a.png", IMAGE)
            save(f"masks/{split}/a.png", mask)
        open_split = prepared(**options)
        return [open_split(split)[0]["label"] for split in ("train", "val")]

    return run


@pytest.mark.parametrize("other", [OBJECT * 0, OBJECT * 0 + 255, OBJECT, 255 - OBJECT])
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (7, 0, 200)])
def test_objects_in_the_opacity_are_understood_from_the_whole_set(two_masks, other, color):
    labels = two_masks(in_opacity(OBJECT, color), in_opacity(other, color))
    assert np.array_equal(labels, [OBJECT // 255, other // 255])


def test_grey_with_opacity_is_understood_too(two_masks):
    grey = np.dstack([OBJECT * 0 + 255, OBJECT])
    assert np.array_equal(two_masks(grey, grey), [OBJECT // 255] * 2)


@pytest.mark.parametrize(
    "other",
    [
        in_opacity(OBJECT, (8, 8, 8)),  # another color
        in_opacity(OBJECT // 2),  # half transparent
        OBJECT,  # not in the opacity
    ],
)
def test_objects_in_the_opacity_of_a_mixed_set_are_refused(two_masks, other):
    with pytest.raises(DeepLabError, match=r"train/a\.png: some pixels differ only"):
        two_masks(in_opacity(OBJECT), other)


def palette_mask(indices, colors, **options):
    image = PIL.Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(np.uint8(colors).ravel().tolist())
    return image


COLORS = [[0, 0, 0], [200, 0, 0], [0, 200, 0]]


def test_palettes_that_disagree_about_an_index_are_refused(save, classes, prepared, tmp_path):
    indices = np.uint8([[0, 1, 2, 1]] * 3)
    for split, colors in (("train", COLORS), ("val", [COLORS[at] for at in (0, 2, 1)])):
        save(f"images/{split}/a.png", IMAGE)
        save(f"masks/{split}/a.png", palette_mask(indices, colors))
    with pytest.raises(
        DeepLabError, match=r"val/a\.png: index 1 .*\(0, 200, 0\).*\(200, 0, 0\) in .*train/a\.png"
    ):
        prepared(skip_bad=True)
    (tmp_path / "colors.txt").write_text("0 0 0 floor\n200 0 0 cat\n0 200 0 dog\n")
    open_split = prepared(color_map=tmp_path / "colors.txt")
    assert np.array_equal(open_split("train")[0]["label"], indices)
    assert np.array_equal(open_split("val")[0]["label"], np.array([0, 2, 1])[indices])


def test_damaged_palettes_are_named_and_left_out(save, classes, prepared, tmp_path):
    indices, swapped = np.uint8([[0, 1, 2, 1]] * 3), [COLORS[at] for at in (0, 2, 1)]
    for number in range(12):
        save(f"images/{'val' if number < 2 else 'train'}/{number:02}.png", IMAGE + number)
        mask = palette_mask(indices, swapped if number == 5 else COLORS)
        save(f"masks/{'val' if number < 2 else 'train'}/{number:02}.png", mask)
    reason = (
        r"train/05\.png: the palette differs from those of the other masks \(index 1 has the color "
        r"\(0, 200, 0\) here, but \(200, 0, 0\) in \S*/\d\d\.png\)"
    )
    with pytest.raises(DeepLabError, match=reason):
        prepared()
    assert len(prepared(skip_bad=True)("train")) == 9
    (info,) = (tmp_path / "prepared").rglob("1.0.0")
    (left_out,) = Preparation.read(info).left_out
    assert re.search(reason, left_out)


def test_palettes_mean_nothing_among_gray_masks(save, classes, prepared):
    indices = np.uint8([[0, 1, 2, 1]] * 3)
    for number in range(22):
        split = "val" if number < 2 else "train"
        save(f"images/{split}/{number:02}.png", IMAGE + number)
        colors = {3: COLORS, 4: COLORS[::-1]}.get(number)
        mask = palette_mask(indices, colors) if colors else indices
        save(f"masks/{split}/{number:02}.png", mask)
    train = prepared()("train")
    assert len(train) == 20
    assert all(np.array_equal(train[at]["label"], indices) for at in range(20))


def test_palettes_may_differ_in_indices_that_do_not_occur(save, classes, prepared):
    for split, colors, highest in (("train", COLORS, 2), ("val", [*COLORS[:2], [9, 9, 9]], 1)):
        save(f"images/{split}/a.png", IMAGE)
        indices = np.minimum(np.uint8([[0, 1, 2, 1]] * 3), highest)
        save(f"masks/{split}/a.png", palette_mask(indices, colors[: highest + 1]))
    assert np.unique(prepared()("val")[0]["label"]).tolist() == [0, 1]


def test_images_of_no_split_are_counted(save, classes, prepared, tmp_path):
    for name in ("train/a", "val/a", "loose", "extra/b"):
        save(f"images/{name}.png", IMAGE + len(name))
        save(f"masks/{name}.png", LABEL)
    prepared()
    (info,) = (tmp_path / "prepared").rglob("1.0.0")
    notes = Preparation.read(info).notes
    for kind in ("images", "masks"):
        assert any(f"2 files left out in {tmp_path / kind}:" in note for note in notes)


def test_pairs_of_no_split_are_counted_if_splits_contain_the_folders(
    save, classes, prepared, tmp_path
):
    for split in ("train", "val", "holdout"):
        save(f"{split}/images/a.png", IMAGE + len(split))
        save(f"{split}/masks/a.png", LABEL)
    assert [len(prepared()(split)) for split in ("train", "val")] == [1, 1]
    (info,) = (tmp_path / "prepared").rglob("1.0.0")
    notes = Preparation.read(info).notes
    for kind in ("images", "masks"):
        start = f"1 files left out in {tmp_path / 'holdout' / kind}: in no split"
        assert any(note.startswith(start) for note in notes)


class CountedName(str):
    """Name that counts how often names are compared."""

    comparisons = 0

    def __eq__(self, other):
        CountedName.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_masks_beside_many_images_are_not_compared_with_all_of_them():
    names = [CountedName(f"{index}{end}") for index in range(300) for end in ("", "_mask")]
    images, masks = _side_by_side([(name, Path(f"{name}.png")) for name in names])
    assert ([name for name, _ in images], [name for name, _ in masks]) == (names[::2], names[1::2])
    assert CountedName.comparisons < 10 * len(names)
