import dataclasses
import io
import json
import pickle
import re
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deeplab_jax.data import ArrayDataset, open_dataset, prepared_names
from deeplab_jax.data.codecs import decode_image, encode_jpeg, encode_png
from deeplab_jax.data.datasets import largest_size, range_doubt
from deeplab_jax.data.preparation import write
from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.evaluate import check_start
from deeplab_jax.training.setup import warn_of_shared_images

IMAGES = np.zeros((3, 4, 5, 3), np.uint8)
MASKS = np.array([0, 2, 255], np.int32)[:, None, None] * np.ones((3, 4, 5), np.int32)


class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Someone else's data set: other names, no class names in its metadata."""

    VERSION = tfds.core.Version("2.1.0")
    code_path = None

    def __init__(self, mask_name="segmentation_mask", value=1, labels=None, **kwargs):
        self._mask_name, self._value, self._labels = mask_name, value, labels
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        channels = 3 if self._mask_name == "annotation" else 1
        mask = tfds.features.Image(shape=(None, None, channels))
        if self._labels:
            mask = tfds.features.LabeledImage(labels=self._labels, shape=(None, None, 1))
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=37),
            "file_name": tfds.features.Text(),
        }
        features[self._mask_name] = mask
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(2):
            image = np.full((6 + number, 9 - number, 3), 50, np.uint8)
            value = np.broadcast_to(self._value, 2)[number]
            mask = encode_png(np.full(image.shape[:2], value, np.uint8))
            example = {"image": io.BytesIO(encode_jpeg(image)), self._mask_name: io.BytesIO(mask)}
            yield number, example | {"label": 3, "file_name": f"pet {number}"}


@pytest.mark.parametrize(
    ("first", "second", "number"),
    [
        ("train", "val", 0),
        ("train+val", "val", 7),
        ("val", "train+val", 7),
        ("train[:10]", "train[10:]", 0),
        ("train[:12]+val[:2]", "val+train[10:]", 4),
        ("train+train", "train", 22),
    ],
)
def test_examples_in_two_splits_are_counted_and_reported(
    shapes_dir, reporter, first, second, number
):
    datasets = [open_dataset("shapes", shapes_dir, split) for split in (first, second)]
    assert datasets[0].num_shared(datasets[1]) == number
    warn_of_shared_images(*datasets, reporter)
    start = f"{number} of {len(datasets[1])} images of the validation split {second!r} are also in"
    assert [text.startswith(start) for text in reporter.warnings] == [True] * bool(number)


def test_arrays_share_no_stored_examples(shapes_dir, reporter):
    arrays = ArrayDataset(IMAGES, MASKS)
    warn_of_shared_images(arrays, arrays, reporter)
    warn_of_shared_images(arrays, open_dataset("shapes", shapes_dir, "val"), reporter)
    assert reporter.warnings == []


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (None, None, None),
        ((0.0, 4095.0), (0.0, 4095.0), None),
        (None, (0.0, 4095.0), "the range of each image, but shapes .* range 0,4095; if"),
        ((0.5, 9.0), None, r"range 0\.5,9, but shapes .* the range of each image; if"),
    ],
)
def test_another_intensity_range_of_a_prepared_dataset_is_reported(
    shapes_dir, reporter, ours, theirs, words
):
    dataset = open_dataset("shapes", shapes_dir, "val")
    dataset.descriptor = dataclasses.replace(dataset.descriptor, intensity_range=theirs)
    model = Mock(intensity_range=ours, class_names=dataset.descriptor.class_names)
    check_start(model, dataset, None, None, reporter)
    assert len(reporter.warnings) == (words is not None)
    assert all(re.search(words, text) for text in reporter.warnings)
    assert not range_doubt(ours, "the model", ArrayDataset(IMAGES, MASKS))


def test_prepared_examples_are_what_was_drawn(shapes_dir):
    dataset = open_dataset("shapes", str(shapes_dir), "val")
    assert (dataset.name, dataset.split, len(dataset)) == ("shapes", "val", 7)
    assert dataset.descriptor.class_names[1] == "disc"
    assert largest_size(dataset) == (64, 64)
    for index in (0, 6):
        image, label = draw_scene(0, 1, index, 64)
        example = dataset[index]
        assert example["image_id"] == f"{index:05}"
        assert np.array_equal(example["label"], label)
        assert np.array_equal(example["image"], decode_image(encode_jpeg(image)))


def test_a_dataset_can_be_sent_to_workers(shapes_dir):
    dataset = open_dataset("shapes", shapes_dir, "train[:5]+val")
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == 12
    assert np.array_equal(copy[11]["image"], dataset[11]["image"])


@pytest.mark.parametrize("mask_name", ["segmentation_mask", "trimap", "annotation"])
def test_foreign_data_sets_are_read_by_name(tmp_path, mask_name):
    write(Foreign(mask_name, data_dir=tmp_path))
    with pytest.raises(DeepLabError, match="'foreign' contains no class names"):
        open_dataset("foreign", tmp_path, "train")
    dataset = open_dataset("foreign", tmp_path, "train", class_names=["pet", "floor"])
    assert dataset.descriptor.num_classes == 2
    assert largest_size(dataset) == (7, 9)
    assert {dataset[0]["image_id"], dataset[1]["image_id"]} == {"pet 0", "pet 1"}
    assert np.unique(dataset[0]["label"]).tolist() == [1]


def test_foreign_label_names_are_used(tmp_path):
    write(Foreign(labels=["sky", "sea"], data_dir=tmp_path))
    assert open_dataset("foreign", tmp_path, "train").descriptor.class_names == ("sky", "sea")


def test_other_class_names_than_those_of_the_dataset_are_refused(tmp_path):
    write(Foreign(labels=["sky", "sea"], data_dir=tmp_path))
    open_dataset("foreign", tmp_path, "train", class_names=("sky", "sea"))
    complaint = r"contains the class names sky, sea, but sea, sky are given; omit class_names"
    with pytest.raises(DeepLabError, match=complaint):
        open_dataset("foreign", tmp_path, "train", class_names=("sea", "sky"))


def test_class_names_replace_the_numbers_of_tfds(tmp_path):
    write(Foreign(labels=2, data_dir=tmp_path))
    assert open_dataset("foreign", tmp_path, "train").descriptor.class_names == ("0", "1")
    dataset = open_dataset("foreign", tmp_path, "train", class_names=("sky", "sea"))
    assert dataset.descriptor.class_names == ("sky", "sea")
    with pytest.raises(DeepLabError, match="contains the class names 0, 1, but sky, sea, land are"):
        open_dataset("foreign", tmp_path, "train", class_names=("sky", "sea", "land"))


def test_a_strange_label_is_named_when_it_is_read(tmp_path):
    write(Foreign(value=9, data_dir=tmp_path))
    dataset = open_dataset("foreign", tmp_path, "train", class_names=["pet", "floor"])
    expected = r"foreign, train, pet \d: illegal mask value 9 \(pixels with illegal values: \d+\)"
    with pytest.raises(DeepLabError, match=expected):
        dataset[0]


def test_data_that_is_not_in_array_records_is_refused(tmp_path):
    write(Foreign(data_dir=tmp_path))
    info = tmp_path / "foreign/2.1.0/dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DeepLabError, match="is stored as tfrecord"):
        open_dataset("foreign", tmp_path, "train", class_names=["a", "b"])


def test_missing_datasets_list_the_available_ones(shapes_dir, tmp_path):
    with pytest.raises(DeepLabError, match=r"no dataset 'shape' .*shapes.*prepare shape "):
        open_dataset("shape", shapes_dir, "train")
    with pytest.raises(DeepLabError, match="no dataset is prepared there"):
        open_dataset("shapes", tmp_path / "none", "train")
    with pytest.raises(DeepLabError, match="unknown split 'vall'; did you mean 'val'"):
        open_dataset("shapes", shapes_dir, "train+vall")
    with pytest.raises(DeepLabError, match="split"):
        open_dataset("shapes", shapes_dir, "train[5")
    with pytest.raises(DeepLabError, match=r"^split 'val\[:0\]' contains no images; .*val has \d+"):
        open_dataset("shapes", shapes_dir, "val[:0]")
    assert prepared_names(shapes_dir) == ["shapes"]


def test_a_dataset_with_a_name_of_its_own_is_explained(shapes_dir, tmp_path):
    with pytest.raises(DeepLabError, match=r"prepare folder --name=pets --data_dir"):
        open_dataset("folder/pets", shapes_dir, "train")
    prepared = tmp_path / "folder/pets/1.0.0/dataset_info.json"
    prepared.parent.mkdir(parents=True)
    prepared.touch()
    with pytest.raises(DeepLabError, match="give its whole name, 'folder/pets'"):
        open_dataset("pets", tmp_path, "train")


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (IMAGES, MASKS),
        (list(IMAGES), list(MASKS.astype(np.uint8))),
        ([IMAGES[0][:2], *IMAGES[1:]], [MASKS[0][:2], *MASKS[1:]]),
    ],
)
def test_array_dataset(images, masks):
    dataset = ArrayDataset(images, masks)
    assert len(dataset) == 3
    assert dataset.descriptor.class_names == ("class 0", "class 1", "class 2")
    assert largest_size(dataset) == (4, 5)
    assert dataset[2]["label"].dtype == np.uint8
    assert (dataset[2]["label"] == 255).all()
    assert ArrayDataset(images, masks, ["a", "b", "c", "d"]).descriptor.num_classes == 4


@pytest.mark.parametrize(
    ("images", "masks", "names", "complaint"),
    [
        (IMAGES[:2], MASKS, None, "2 images, but 3 masks"),
        (IMAGES[:0], MASKS[:0], None, "there are no images"),
        (IMAGES.astype(float), MASKS, None, r"arrays\[0\]: the image is float64\[4, 5, 3\]"),
        (IMAGES[..., 0], MASKS, None, r"uint8\[4, 5\]"),
        (IMAGES, MASKS[:, :3], None, r"mask is int32\[3, 5\]; .* of shape \[4, 5\]"),
        (IMAGES, MASKS.astype(float), None, "mask is float64"),
        (IMAGES, MASKS, ["a", "b"], r"expected class indices 0\.\.1, or 255"),
        (IMAGES, MASKS - 1, None, "mask value"),
        (IMAGES, MASKS * 2, None, "mask value"),
    ],
)
def test_illegal_arrays(images, masks, names, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        ArrayDataset(images, masks, names)


BINARY = np.array([0, 255, 0], np.uint8)[:, None, None] * np.ones((3, 4, 5), np.uint8)


@pytest.mark.parametrize("names", [None, ["other", "road"]])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_masks_of_0_and_255_are_two_classes(names, dtype):
    dataset = ArrayDataset(IMAGES, BINARY.astype(dtype), names)
    assert dataset.descriptor.num_classes == 2
    assert dataset.absent_classes == ()
    for index, expected in enumerate((0, 1, 0)):
        assert dataset[index]["label"].dtype == np.uint8
        assert (dataset[index]["label"] == expected).all()


@pytest.mark.parametrize(
    ("masks", "names", "options"),
    [
        (BINARY, ["a", "b", "c"], {}),  # two classes do not occur
        (np.where(MASKS == 2, 1, MASKS), ["a", "b"], {}),
        (BINARY, ["a", "b"], {"binary": False}),
    ],
)
def test_elsewhere_255_is_void(masks, names, options):
    dataset = ArrayDataset(IMAGES, masks, names, **options)
    assert (dataset[1 if masks is BINARY else 2]["label"] == 255).all()
    occurring = set(np.unique(masks).tolist())
    assert dataset.absent_classes == tuple(
        name for index, name in enumerate(names) if index not in occurring
    )


def test_a_part_of_a_binary_dataset_can_be_declared_binary():
    dataset = ArrayDataset(IMAGES, BINARY * 0 + 255, ["a", "b"], binary=True)
    assert (dataset[0]["label"] == 1).all()
    assert ArrayDataset(IMAGES, BINARY * 0, binary=True).descriptor.num_classes == 2
    with pytest.raises(DeepLabError, match=r"the mask values 1, 2 are illegal with binary=True"):
        ArrayDataset(IMAGES, np.arange(3)[:, None, None] * np.ones((3, 4, 5), int), binary=True)


@pytest.mark.parametrize(
    ("masks", "names"), [(BINARY, ["cat"]), (BINARY * 0, None), (BINARY * 0, ["cat"])]
)
def test_one_class_is_refused_with_the_remedy(masks, names):
    with pytest.raises(DeepLabError, match=r"at least two.*background.*data\.class_names"):
        ArrayDataset(IMAGES, masks, names)


def test_two_classes_of_the_same_name_are_refused(tmp_path):
    complaint = "the class name 'cat' occurs twice; give each class a different name"
    with pytest.raises(DeepLabError, match=f"arrays: {complaint}"):
        ArrayDataset(IMAGES, MASKS, ["other", "cat", "cat", "dog"])
    write(Foreign(data_dir=tmp_path))
    with pytest.raises(DeepLabError, match=f"foreign: {complaint}"):
        open_dataset("foreign", tmp_path, "train", class_names=["cat", "cat"])


def test_a_foreign_dataset_of_one_class_is_refused(tmp_path):
    write(Foreign(labels=["cat"], data_dir=tmp_path))
    with pytest.raises(DeepLabError, match=r"foreign: only the class 'cat'"):
        open_dataset("foreign", tmp_path, "train")


@pytest.mark.parametrize(
    ("mask_values", "expected"), [((0, 255), (0, 1)), ((1, 255), (1, 255)), ((0, 0), (0, 0))]
)
def test_foreign_masks_of_0_and_255_are_two_classes(tmp_path, mask_values, expected):
    write(Foreign(value=mask_values, labels=["other", "road"], data_dir=tmp_path))
    dataset = open_dataset("foreign", tmp_path, "train")
    assert sorted(dataset[index]["label"][0, 0] for index in range(2)) == sorted(expected)


@pytest.mark.parametrize(("channels", "dtype"), [(4, np.uint8), (3, np.uint16)])
def test_foreign_images_of_further_channels_or_bits_are_refused(tmp_path, channels, dtype):
    write(Foreign(labels=["other", "road"], data_dir=tmp_path))
    path = tmp_path / "foreign/2.1.0/features.json"
    features = json.loads(path.read_text())
    image = features["featuresDict"]["features"]["image"]["image"]
    image["shape"]["dimensions"][-1] = str(channels)
    image["dtype"] = np.dtype(dtype).name
    path.write_text(json.dumps(features))
    with pytest.raises(DeepLabError, match=rf"'image' is uint\d+ with {channels} channels"):
        open_dataset("foreign", tmp_path, "train")
