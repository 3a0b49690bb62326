import json

import numpy as np
import pytest
from stand_ins import random_dataset

from deeplab_jax.data import ArrayDataset, duplicated
from deeplab_jax.data.datasets import (
    SAMPLED,
    fingerprint,
    fingerprint_differences,
    sampled_positions,
)
from deeplab_jax.data.folds import folds

SIZES = [(9, 12), (10, 8), (7, 7)]
NAMES = ["sky", "tree", "road", "car"]


def arrays():
    dataset = random_dataset(SIZES)
    examples = [dataset[index] for index in range(len(SIZES))]
    images, masks = ([example[key].copy() for example in examples] for key in ("image", "label"))
    return images, masks


def test_equal_arrays_have_equal_fingerprints_whatever_integers_hold_the_masks():
    images, masks = arrays()
    before = fingerprint(ArrayDataset(images, masks, NAMES))
    wider = [mask.astype(np.int64) for mask in masks]
    now = fingerprint(ArrayDataset([image.copy() for image in images], wider, NAMES))
    assert now == before == json.loads(json.dumps(before))
    assert fingerprint_differences(before, now) == []


@pytest.mark.parametrize("change", ["pixel", "label", "order", "size"])
def test_any_other_content_differs(change):
    images, masks = arrays()
    before = fingerprint(ArrayDataset(images, masks, NAMES))
    if change == "pixel":
        images[2][6, 6, 2] ^= 1
    elif change == "label":
        masks[1][0, 0] = (masks[1][0, 0] + 1) % 4
    elif change == "order":
        images, masks = images[::-1], masks[::-1]
    else:
        images[2], masks[2] = images[2].reshape(49, 1, 3), masks[2].reshape(49, 1)
    now = fingerprint(ArrayDataset(images, masks, NAMES))
    (difference,) = fingerprint_differences(before, now)
    assert difference.startswith("content")


def test_differences_name_fields_and_values():
    images, masks = arrays()
    before = fingerprint(ArrayDataset(images, masks, NAMES))
    fewer = fingerprint(ArrayDataset(images[:2], masks[:2], NAMES, name="mine"))
    assert fingerprint_differences(before, fewer) == ["name: arrays → mine", "num_images: 3 → 2"]
    renamed = fingerprint(ArrayDataset(images, masks, ["sky", "bush", "road", "car"]))
    assert fingerprint_differences(before, renamed) == ["class_names: tree → bush"]


class Another:
    """A data set of somebody else's, with the protocol alone."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.name, self.split, self.descriptor = "other", "train", dataset.descriptor

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        return self._dataset[index]


def test_datasets_without_stored_bytes_are_fingerprinted_by_samples():
    images, masks = arrays()
    before = fingerprint(Another(ArrayDataset(images, masks, NAMES)))
    assert fingerprint(Another(ArrayDataset(images, masks, NAMES))) == before
    images[0][0, 0, 0] ^= 1
    assert fingerprint(Another(ArrayDataset(images, masks, NAMES))) != before


def test_folds_and_duplicates_differ_by_their_positions():
    dataset = random_dataset([(8, 9)] * 6)
    found = [fingerprint(part) for pair in folds(dataset, 3, seed=0) for part in pair]
    found.append(fingerprint(duplicated(dataset, ["road"])))
    assert len({each["content"] for each in found}) == len(found)
    again = [fingerprint(part) for pair in folds(dataset, 3, seed=0) for part in pair]
    assert again == found[:-1]
    other = random_dataset([(8, 9)] * 6, seed=1)
    assert fingerprint(next(folds(other, 3, seed=0))[0])["content"] != found[0]["content"]


@pytest.mark.parametrize("length", [1, 2, SAMPLED, SAMPLED + 1, 10_582])
def test_sampled_positions_are_different_and_reach_both_ends(length):
    positions = sampled_positions(length)
    assert len(set(positions)) == len(positions) == min(length, SAMPLED)
    assert (positions[0], positions[-1]) == (0, length - 1)
