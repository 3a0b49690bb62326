import numpy as np
import pytest
from stand_ins import random_dataset

from deeplab_jax.data.folds import folds
from deeplab_jax.errors import DeepLabError

SIZES = [(4 + n, 5) for n in range(11)]


@pytest.mark.parametrize("count", [2, 3, 11])
def test_every_example_is_held_out_once(count):
    dataset = random_dataset(SIZES)
    held_out = []
    for seen, unseen in folds(dataset, count, seed=3):
        ids = [[part[n]["image_id"] for n in range(len(part))] for part in (seen, unseen)]
        assert sorted(ids[0] + ids[1], key=int) == [str(n) for n in range(len(SIZES))]
        assert len(unseen) in (len(SIZES) // count, -(-len(SIZES) // count))
        sizes = np.concatenate([seen.image_sizes(), unseen.image_sizes()])
        assert sorted(map(tuple, sizes.tolist())) == SIZES
        assert seen.descriptor is dataset.descriptor
        held_out += ids[1]
    assert sorted(held_out, key=int) == [str(n) for n in range(len(SIZES))]


def test_folds_are_a_function_of_the_seed():
    def first(seed):
        _, unseen = next(folds(random_dataset(SIZES), 3, seed))
        return [unseen[n]["image_id"] for n in range(len(unseen))]

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize("count", [0, 1, 12])
def test_impossible_folds_are_refused(count):
    with pytest.raises(DeepLabError, match="give 2 to 11"):
        list(folds(random_dataset(SIZES), count, seed=0))


def test_a_single_image_cannot_be_divided():
    with pytest.raises(DeepLabError, match=r"images: 1\); give at least 2 images"):
        list(folds(random_dataset(SIZES[:1]), 2, seed=0))


def test_examples_are_those_of_the_data_set():
    dataset = random_dataset(SIZES)
    seen, _ = next(folds(dataset, 4, seed=0))
    example = seen[2]
    original = dataset[int(example["image_id"])]
    np.testing.assert_array_equal(example["image"], original["image"])
