import json

import numpy as np
import pytest

from deeplab_jax.data.statistics import SplitStatistics, StatisticsCounter

LABELS = [
    np.array([[0, 0, 1, 255]], np.uint8),
    np.array([[0], [0], [0]], np.uint8),
    np.array([[0, 1], [1, 255]], np.uint8),
]


def test_statistics_by_hand():
    counter = StatisticsCounter(3)
    for label in LABELS:
        counter.add(label)
    statistics = counter.result()
    assert statistics.num_images == 3
    assert statistics.class_pixels == (6, 3, 0)
    assert statistics.pixels_where_present == (9, 6, 0)
    assert statistics.void_pixels == 2
    assert statistics.sizes == ((3, 1), (1, 4), (2, 2))
    # f = 6/9, 3/6; median = 7/12
    assert statistics.class_weights() == (pytest.approx(7 / 8), pytest.approx(7 / 6), None)
    assert SplitStatistics.from_json(json.loads(json.dumps(statistics.to_json()))) == statistics


def test_nothing_but_void():
    counter = StatisticsCounter(2)
    counter.add(np.full((2, 2), 255, np.uint8))
    assert counter.result().class_weights() == (None, None)
