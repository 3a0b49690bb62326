import pytest

from deeplab_jax.data.augmentation import size_in_range


@pytest.mark.parametrize(
    ("size", "limits", "result"),
    [
        ((480, 640), (513, 513, 16), (385, 513)),  # 384.75 → 384 → 385
        ((640, 480), (513, 513, 16), (513, 385)),
        ((100, 100), (513, 513, 16), (513, 513)),
        ((1000, 31), (257, 257, 16), (257, 17)),  # 7.967 → 7 → 17
        ((300, 400), (600, 0, 0), (600, 800)),
        ((300, 400), (600, 700, 0), (525, 700)),
        ((300, 400), (0, 200, 0), (150, 200)),
        ((300, 400), (0, 900, 0), (300, 400)),  # no wish to be larger
        ((300, 400), (0, 900, 16), (305, 401)),
        ((300, 400), (512, 2048, 32), (513, 705)),  # 682.67 → 682 → 705
        ((1, 4000), (0, 100, 0), (1, 100)),
        ((7, 9), (0, 0, 16), (7, 9)),
    ],
)
def test_size_in_range(size, limits, result):
    assert size_in_range(size, *limits) == result


def test_the_limit_is_rounded_down_so_that_no_side_exceeds_it():
    """As released: 512 with a factor of 16 means 497."""
    assert size_in_range((480, 640), 512, 512, 16) == (385, 497)
    assert size_in_range((480, 640), 0, 10, 16) == (1, 1)
    for longest in range(1, 600, 7):
        assert max(size_in_range((480, 640), 600, longest, 16)) <= longest
