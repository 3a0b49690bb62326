"""CutMix, ClassMix, copy-paste and RandAugment: by hand, and under the contract of the pipeline."""

import dataclasses
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deeplab_jax import config as configs
from deeplab_jax.data import ArrayDataset, Augmentation, open_dataset, training_batches
from deeplab_jax.data.augmentation import COLOR_OPERATIONS, randaugment
from deeplab_jax.data.mixing import (
    half_of_classes,
    paste,
    pasted_labels,
    random_objects,
    random_rectangle,
    training_crop,
)
from deeplab_jax.errors import DeepLabError

VOID = 255
STILL = Augmentation((6, 8), 1.0, 1.0, flip=False)


def scripted(random=(), integers=()):
    """A random generator that returns the given values, one after the other."""
    randoms, wholes = iter(random), iter(integers)
    return SimpleNamespace(
        random=lambda *size: next(randoms), integers=lambda *bounds: next(wholes)
    )


@pytest.mark.parametrize(
    ("area", "center", "rows", "columns"),
    [
        # A quarter of the area is half of each side: 4 of 8 rows and 6 of 12 columns.
        (0.25, (4, 6), slice(2, 6), slice(3, 9)),
        (0.25, (1, 11), slice(0, 3), slice(8, 12)),
        (0.9999, (4, 6), slice(1, 7), slice(1, 11)),
        (0.0, (4, 6), slice(0, 0), slice(0, 0)),
    ],
)
def test_the_rectangle_of_cutmix(area, center, rows, columns):
    selected = random_rectangle(scripted([area], center), (8, 12))
    expected = np.zeros((8, 12), bool)
    expected[rows, columns] = True
    np.testing.assert_array_equal(selected, expected)


def test_classmix_selects_half_of_the_classes_and_never_void():
    label = np.array([[0, 0, 3, 3], [7, 7, VOID, 3], [9, 9, 9, VOID]], np.uint8)
    chosen = set()
    for seed in range(40):
        selected = half_of_classes(np.random.default_rng(seed), label, VOID)
        classes = set(label[selected].tolist())
        assert len(classes) == 2
        np.testing.assert_array_equal(selected, np.isin(label, list(classes)))
        chosen |= {frozenset(classes)}
    # All pairs of four classes occur.
    assert len(chosen) == 6
    assert VOID not in frozenset().union(*chosen)


@pytest.mark.parametrize(("values", "number"), [((5,), 0), ((5, 6, 8), 1), ((VOID,), 0)])
def test_classmix_rounds_down(values, number):
    label = np.resize(np.array(values, np.uint8), (4, 6))
    selected = half_of_classes(np.random.default_rng(0), label, VOID)
    assert len(np.unique(label[selected])) == number


def test_copy_paste_selects_whole_objects_of_the_classes():
    label = np.array(
        [
            [1, 0, 0, 2, 2],
            [0, 1, 0, 0, 0],
            [0, 0, 0, 1, 1],
            [2, 0, 0, 1, 3],
        ],
        np.uint8,
    )
    # Of class 1, the diagonal is one object; the second object and, of class 2, the first are
    # chosen. The first number belongs to the other classes.
    random = scripted([np.array([0.1, 0.9, 0.1]), np.array([0.1, 0.1, 0.9])])
    expected = np.zeros((4, 5), bool)
    expected[2, 3:] = expected[3, 3] = expected[0, 3:] = True
    np.testing.assert_array_equal(random_objects(random, label, (1, 2)), expected)
    assert not random_objects(np.random.default_rng(0), label, (4,)).any()


def test_pasting_replaces_pixels_and_labels_and_changes_no_argument():
    crop = {"image": np.zeros((2, 2, 4), np.uint16), "label": np.array([[1, 2], [3, 4]], np.uint8)}
    source = {"image": np.full((2, 2, 4), 900, np.uint16), "label": np.full((2, 2), 9, np.uint8)}
    mixed = paste(crop, source, np.array([[True, False], [False, True]]))
    assert mixed["label"].tolist() == [[9, 2], [3, 9]]
    assert mixed["image"][..., 0].tolist() == [[900, 0], [0, 900]]
    assert mixed["image"].dtype == np.uint16
    assert crop["label"].tolist() == [[1, 2], [3, 4]]


def plain_dataset(number=12):
    """Image k has the gray value k, and the class k modulo 3 in its left and right half."""
    images = np.repeat(np.arange(number, dtype=np.uint8), 6 * 8 * 3).reshape(number, 6, 8, 3)
    labels = np.repeat(np.arange(number, dtype=np.uint8) % 3, 48).reshape(number, 6, 8)
    return ArrayDataset(images, labels, ["a", "b", "c"])


@pytest.mark.parametrize("name", ["cutmix", "classmix", "copy_paste"])
def test_probability_and_agreement_of_image_and_label(name):
    dataset = plain_dataset()
    classes = ("b",) if name == "copy_paste" else None
    half = dataclasses.replace(STILL, **{name: 0.5}, copy_paste_classes=classes)
    pasted = pasted_labels(dataset, half)
    mixed, partners = 0, set()
    for seed in range(300):
        random = np.random.default_rng(seed)
        crop = training_crop(dataset[0], random, dataset, half, 3, pasted)
        np.testing.assert_array_equal(crop["image"][..., 0] % 3, crop["label"])
        others = set(np.unique(crop["image"]).tolist()) - {0}
        partners |= others
        mixed += bool(others)
    if name == "classmix":
        # Each image has one class, half of which is none.
        assert mixed == 0
        return
    # CutMix cannot be seen if the partner is the same image or the rectangle is empty; objects are
    # those of a third of the partners, and half of them are chosen.
    assert (105 < mixed < 150) if name == "cutmix" else (12 < mixed < 42)
    assert partners == (set(range(1, 12)) if name == "cutmix" else {1, 4, 7, 10})


def test_without_mixing_the_generator_is_used_as_before():
    dataset = plain_dataset()
    off, on = (dataclasses.replace(STILL, cutmix=value) for value in (0.0, 1e-9))
    one, other = (
        training_crop(dataset[3], np.random.default_rng(5), dataset, augmentation)
        for augmentation in (off, on)
    )
    np.testing.assert_array_equal(one["image"], other["image"])


MIXED = Augmentation(
    (33, 49), cutmix=0.4, classmix=0.3, copy_paste=0.3, copy_paste_classes=("disc",), randaugment=2
)


@pytest.mark.parametrize(
    "options",
    [pytest.param({"workers": 2}, marks=pytest.mark.slow), {"start_step": 2}, {"num_hosts": 2}],
    ids=["workers", "restart", "hosts"],
)
def test_hosts_workers_and_restarts_change_nothing(shapes_dir, options):
    train = open_dataset("shapes", shapes_dir, "train")
    plain = training_batches(train, MIXED, batch_size=4, seed=3)
    reference = [next(plain) for _ in range(4)]
    hosts = [
        training_batches(train, MIXED, batch_size=4, seed=3, host=host, **options)
        for host in range(options.get("num_hosts", 1))
    ]
    first = options.get("start_step", 0)
    for step in range(first, 4):
        parts = [next(host) for host in hosts]
        for name in ("image", "label"):
            found = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(found, reference[step][name])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cutmix": 0.7, "classmix": 0.4}, "add up to 1.1; each crop is mixed at most once"),
        ({"copy_paste": 0.5}, "copy_paste=0.5 and copy_paste_classes=None: set both, or neither"),
        ({"copy_paste_classes": ("a",)}, "copy_paste=0 and copy_paste_classes"),
        ({"cutmix": 1.5}, r"cutmix=1.5 must be in \[0, 1\]"),
        ({"randaugment": -1}, "randaugment=-1 must be a whole number of at least 0"),
        ({"randaugment_magnitude": 31.0}, "must be a number from 0 to 30"),
    ],
)
def test_illegal_combinations_are_refused(fields, message):
    with pytest.raises(DeepLabError, match=message):
        dataclasses.replace(STILL, **fields)


def test_an_unknown_class_is_refused_with_the_nearest():
    wrong = dataclasses.replace(STILL, copy_paste=1.0, copy_paste_classes=("B",))
    with pytest.raises(DeepLabError, match=r"copy_paste_classes 'B'; did you mean 'b'\?"):
        pasted_labels(plain_dataset(), wrong)


def gray(*values):
    return np.array(values, np.uint8).reshape(1, -1, 1).repeat(3, axis=2)


@pytest.mark.parametrize(
    ("name", "strength", "before", "after"),
    [
        ("identity", 1.0, gray(3, 200), gray(3, 200)),
        # 0.3 of 255 is inverted from 178.5 up.
        ("solarize", -0.3, gray(178, 179, 255), gray(178, 76, 0)),
        ("posterize", 1.0, gray(0x0F, 0xAB), gray(0x00, 0xA0)),
        ("posterize", 0.3, gray(0x0F, 0xAB), gray(0x0E, 0xAA)),
        ("brightness", 0.5, gray(100, 200), gray(145, 255)),
        ("brightness", -0.5, gray(100, 200), gray(55, 110)),
        # The mean is 150; a factor of 0.1 keeps a tenth of the distance to it.
        ("contrast", -1.0, gray(100, 200), gray(145, 155)),
        ("autocontrast", 1.0, gray(50, 75, 101), gray(0, 125, 255)),
        ("color", 1.0, gray(100, 200), gray(100, 200)),
    ],
)
def test_color_operations_by_hand(name, strength, before, after):
    picture = COLOR_OPERATIONS[name](Image.fromarray(before), strength)
    np.testing.assert_array_equal(np.asarray(picture), after)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_color_operations_agree_with_torchvision(magnitude):
    autoaugment = pytest.importorskip(
        "torchvision.transforms.autoaugment", reason="torchvision is needed: deeplab_jax[peers]"
    )
    nearest = autoaugment.InterpolationMode.NEAREST
    space = autoaugment.RandAugment()._augmentation_space(31, (20, 30))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name, operation in COLOR_OPERATIONS.items():
        title = {"autocontrast": "AutoContrast"}.get(name, name.title())
        magnitudes, signed = space[title]
        value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        for sign in (1, -1) if signed else (1,):
            picture = Image.fromarray(image)
            theirs = autoaugment._apply_op(picture, title, sign * value, nearest, None)
            ours = operation(Image.fromarray(image), sign * magnitude / 30)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=name)


def test_randaugment_draws_every_operation_and_none_if_it_is_off():
    image = np.random.default_rng(1).integers(30, 200, (64, 64, 3), dtype=np.uint8)
    random = np.random.default_rng(0)
    before = pickle.dumps(random)
    assert randaugment(image, random, 0, 9) is image
    assert pickle.dumps(random) == before
    results = {randaugment(image, random, 1, 9).tobytes() for _ in range(200)}
    # Identity, autocontrast, equalize, solarize, posterize; four others with two signs.
    assert len(results) == 5 + 2 * 4


def test_fields_keep_their_defaults_off():
    section = configs.default().augmentation
    assert not Augmentation(**section.to_dict()).mixes
    assert section.randaugment == 0
