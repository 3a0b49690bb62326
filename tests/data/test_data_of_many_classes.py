"""Labels of 255, 256, 300 and 847 classes, from files and arrays to batches."""

import functools

import cv2
import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data import (
    ArrayDataset,
    Augmentation,
    evaluation_batches,
    open_dataset,
    training_batches,
)
from deeplab_jax.data.augmentation import augment
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.codecs import encode_png
from deeplab_jax.data.descriptors import bit_interleaved_palette, describe
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_COLOR, label_dtype, void_label

counts = pytest.mark.parametrize("count", [255, 256, 300])
IMAGE = np.zeros((5, 7, 3), np.uint8)


def names_of(count):
    return [f"class {index}" for index in range(count)]


def label_of(count):
    """Returns a label with 0, 43, the last class, 255 where it is a class, and void."""
    label = np.full((5, 7), void_label(count), label_dtype(count))
    label[:3], label[1:3, 3:] = 43, count - 1
    label[0, :2] = 255 if count > 255 else 7
    return label


@pytest.fixture
def prepared(tmp_path, reporter, save):
    """Writes a folder of masks and returns what opens its splits."""

    def run(count, masks, **options):
        classes = tmp_path / "classes.txt"
        classes.write_text("\n".join(names_of(count)))
        for split in ("train", "val"):
            for name, mask in masks.items():
                save(f"images/{split}/{name}.png", IMAGE)
                path = tmp_path / f"masks/{split}/{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
        data_dir = tmp_path / "prepared"
        make = functools.partial(
            Folder, source=tmp_path, data_dir=data_dir, reporter=reporter, **options
        )
        found = prepare(make, reporter=reporter)
        return found, functools.partial(open_dataset, "folder", data_dir)

    return run


@counts
def test_a_folder_keeps_every_value(count, prepared):
    label = label_of(count)
    report, open_split = prepared(count, {"a": label, "b": np.zeros_like(label)})
    train = open_split("train")
    assert train.descriptor.num_classes == count
    for index, expected in enumerate((label, np.zeros_like(label))):
        found = train[index]["label"]
        assert found.dtype == label_dtype(count)
        assert np.array_equal(found, expected)
    void = label == void_label(count)
    statistics = report.statistics["train"]
    assert statistics.void_pixels == void.sum() == 14
    assert statistics.class_pixels == tuple(
        np.bincount(np.append(label[~void], np.zeros(35, int)), minlength=count)
    )
    (batch,) = evaluation_batches(train, (6, 9), batch_size=3)
    assert batch["label"].dtype == label_dtype(count)
    assert np.array_equal(batch["label"][0, :5, :7], label)
    assert np.all(batch["label"][0, 5:] == void_label(count))
    # Two images and one that fills the batch.
    assert np.all(batch["label"][2] == void_label(count))


def test_masks_of_few_bits_hold_small_classes_of_many(prepared, reporter):
    """An 8-bit file of a set of 300 classes: 255 is a class, as the command says."""
    mask = np.array([[0, 43, 254, 255]] * 5, np.uint8).repeat(2, axis=1)[:, :7]
    _, open_split = prepared(300, {"a": mask})
    found = open_split("train")[0]["label"]
    assert found.dtype == np.uint16
    assert np.array_equal(found, mask)
    assert any("65535" in text and "'class 255'" in text for text in reporter.messages)


@pytest.mark.parametrize("value", [300, 65534])
def test_a_value_that_is_neither_class_nor_void_is_refused(prepared, value):
    mask = np.full((5, 7), value, np.uint16)
    with pytest.raises(DeepLabError, match=rf"a\.png.*{value} \(35 pixels\).*0\.\.299.*65535"):
        prepared(300, {"a": mask})


def test_with_255_classes_void_stays_255(prepared):
    mask = np.full((5, 7), 65535, np.uint16)
    with pytest.raises(DeepLabError, match=r"a\.png.*65535 \(35 pixels\).*0\.\.254.*255"):
        prepared(255, {"a": mask})


def test_painted_masks_of_many_classes(tmp_path, save, prepared):
    palette = bit_interleaved_palette(301)
    lines = [f"{r} {g} {b} class {index}" for index, (r, g, b) in enumerate(palette[:300])]
    colors = tmp_path / "colors.txt"
    colors.write_text("\n".join([*lines, "{} {} {} void".format(*palette[300])]))
    label = label_of(300)
    painted = np.array(palette, np.uint8)[np.where(label == 65535, 300, label)]
    _, open_split = prepared(300, {"a": painted}, color_map=colors)
    assert np.array_equal(open_split("train")[0]["label"], label)


def test_stored_masks_are_checked_against_the_number_of_classes(prepared, monkeypatch):
    _, open_split = prepared(300, {"a": label_of(300)})
    train = open_split("train")
    stored = dict(train._source[0])
    for wrong in (np.full((5, 7), 300, np.uint16), np.full((5, 7), 65534, np.uint16)):
        monkeypatch.setattr(train, "_source", [stored | {"label": encode_png(wrong)}])
        with pytest.raises(DeepLabError, match=rf"mask value {wrong[0, 0]} .*0..299, void 65535"):
            train[0]


@counts
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_arrays(count, dtype):
    label = label_of(count)
    dataset = ArrayDataset(IMAGE[None], label[None].astype(dtype), names_of(count))
    assert dataset[0]["label"].dtype == label_dtype(count)
    assert np.array_equal(dataset[0]["label"], label)


def test_arrays_are_never_taken_for_many_classes_by_their_values():
    label = np.full((1, 5, 7), 299, np.uint16)
    with pytest.raises(DeepLabError, match=r"299.*class_names"):
        ArrayDataset(IMAGE[None], label)
    with pytest.raises(DeepLabError, match=r"299.*0\.\.254, or 255"):
        ArrayDataset(IMAGE[None], label, names_of(255))
    with pytest.raises(DeepLabError, match=r"300.*0\.\.299, or 65535"):
        ArrayDataset(IMAGE[None], label + 1, names_of(300))


@counts
@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_augmented_labels_contain_only_original_values(count, rotation):
    """Resizing, turning and padding invent nothing: above all no value between two classes."""
    random = np.random.default_rng(0)
    label = np.array([0, 43, count - 1, 255 if count > 255 else 7], label_dtype(count))[
        random.integers(0, 4, (37, 29))
    ]
    example = {"image": np.zeros((37, 29, 3), np.uint8), "label": label, "image_id": "0"}
    augmentation = Augmentation((41, 33), rotation=rotation, max_class_fraction=0.9)
    legal = {*np.unique(label).tolist(), void_label(count)}
    for seed in range(8):
        found = augment(example, np.random.default_rng(seed), augmentation)["label"]
        assert found.dtype == label.dtype
        assert set(np.unique(found).tolist()) <= legal
        # As OpenCV does with the positions of the same values in 8 bits.
        small = np.searchsorted(np.unique(label), label).astype(np.uint8)
        same = augment(example | {"label": small}, np.random.default_rng(seed), augmentation)
        table = np.full(256, void_label(count), label.dtype)
        table[: len(np.unique(label))] = np.unique(label)
        assert np.array_equal(table[same["label"]], found)


@counts
def test_a_dataset_of_the_users_own_may_give_wide_labels(count):
    """The number of classes decides what is void, not the dtype."""
    label = label_of(count).astype(np.uint16)

    class Own(ArrayDataset):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"label": label}

    dataset = Own(IMAGE[None], label[None], names_of(count))
    (batch,) = evaluation_batches(dataset, (6, 9), batch_size=1)
    assert np.all(batch["label"][0, 5:] == void_label(count))
    crops = Augmentation((8, 9), min_scale=1, max_scale=1, flip=False)
    batch = next(training_batches(dataset, crops, batch_size=1, seed=0))
    assert np.array_equal(batch["label"][0, :5, :7], label)
    assert np.all(batch["label"][0, 5:] == void_label(count))


def test_unscaled_crops_are_exact_and_void_outside():
    label = label_of(300)
    example = {"image": IMAGE, "label": label, "image_id": "0"}
    plain = Augmentation((8, 9), min_scale=1, max_scale=1, flip=False)
    found = augment(example, np.random.default_rng(0), plain)["label"]
    assert np.array_equal(found[:5, :7], label)
    assert np.all(found[5:] == 65535)
    assert np.all(found[:, 7:] == 65535)


@pytest.mark.parametrize("count", [21, 255, 300, 847])
def test_generated_colors_are_distinct_and_none_is_voids(count):
    palette = describe("many", names_of(count)).palette
    assert len(set(palette)) == len(palette) == count
    assert VOID_COLOR not in palette
    assert palette[:511] == bit_interleaved_palette(511)[:count]


def test_opencv_resizes_16_bit_labels_without_smoothing():
    label = np.random.default_rng(0).integers(0, 65536, (9, 13)).astype(np.uint16)
    large = cv2.resize(label, (26, 18), interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(large, label.repeat(2, 0).repeat(2, 1))
