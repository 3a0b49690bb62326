import dataclasses

import cv2
import numpy as np
import pytest

from deeplab_jax.data.augmentation import Augmentation, augment, distort, size_in_range
from deeplab_jax.data.crops import (
    IMAGE_SAMPLING,
    LABEL_SAMPLING,
    MEAN_PIXEL,
    Span,
    View,
    pad_to,
    random_view,
    render,
)
from deeplab_jax.errors import DeepLabError

STILL = Augmentation(crop_size=(9, 8), min_scale=1.0, max_scale=1.0, flip=False)


def coordinate_example(height: int, width: int) -> dict:
    """An image whose red is its row and green its column; the label is row + column modulo 250."""
    rows, columns = np.indices((height, width), np.uint8)
    image = np.stack([rows, columns, np.full_like(rows, 200)], -1)
    return {"image": image, "label": (rows + columns) % 250, "image_id": "x"}


def draws(example: dict, augmentation: Augmentation, number: int = 60) -> list[dict]:
    return [augment(example, np.random.default_rng(seed), augmentation) for seed in range(number)]


@pytest.mark.parametrize("size", [(9, 8), (23, 31), (9, 40), (12, 8)])
def test_an_unscaled_crop_is_exact_and_every_position_occurs(size):
    example = coordinate_example(*size)
    corners = set()
    for crop in draws(example, STILL, 800):
        top, left = crop["image"][0, 0, :2].tolist()
        shown = np.s_[top : top + 9, left : left + 8]
        assert np.array_equal(crop["image"], example["image"][shown])
        assert np.array_equal(crop["label"], example["label"][shown])
        corners.add((top, left))
    possible = (size[0] - 8) * (size[1] - 7)
    assert len(corners) > 0.6 * possible
    assert (0, 0) in corners or possible > 100


@pytest.mark.parametrize("size", [(5, 40), (40, 3), (1, 1), (5, 3)])
def test_small_images_are_padded_at_bottom_and_right(size):
    example = coordinate_example(*size)
    height, width = min(size[0], 9), min(size[1], 8)
    for crop in draws(example, STILL, 5):
        inside = np.zeros((9, 8), bool)
        inside[:height, :width] = True
        assert (crop["label"][inside] < 250).all()
        assert (crop["label"][~inside] == 255).all()
        assert (crop["image"][~inside] == MEAN_PIXEL).all()


def test_flip_mirrors_half_of_the_crops_and_pads_before():
    example = coordinate_example(9, 5)
    crops = draws(example, dataclasses.replace(STILL, flip=True))
    mirrored = [crop for crop in crops if crop["label"][0, 0] == 255]
    assert 15 < len(mirrored) < 45
    for crop in mirrored:
        assert np.array_equal(crop["image"][:, ::-1][:, :5], example["image"])
        assert np.array_equal(crop["label"][:, ::-1][:, :5], example["label"])


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.3, 2.0])
def test_a_scaled_crop_is_a_window_of_the_resized_image(scale):
    """A plane survives bilinear resizing exactly, so each crop tells where it was taken."""
    example = coordinate_example(61, 83)
    scaled = Augmentation((17, 21), min_scale=scale, max_scale=scale, flip=False)
    for crop in draws(example, scaled, 20):
        rows, columns = crop["image"][..., 0].astype(float), crop["image"][..., 1].astype(float)
        # The ends are left out: there bilinear resizing repeats the last pixel, and values are
        # rounded to integers.
        slope_down = (rows[-3] - rows[2]).mean() / (len(rows) - 5)
        slope_right = (columns[:, -3] - columns[:, 2]).mean() / (columns.shape[1] - 5)
        assert slope_down == pytest.approx(1 / scale, abs=1.1 / (len(rows) - 5))
        assert slope_right == pytest.approx(1 / scale, abs=1.1 / (columns.shape[1] - 5))
        assert np.abs(rows + columns - crop["label"]).max() <= 2


@pytest.mark.parametrize("size", [(33, 44), (7, 90), (20, 29)])
def test_whole_image_views_equal_opencv_and_nearest_pixel_centres(size):
    # Sides are odd: no new pixel's centre falls between two old pixels.
    example = coordinate_example(19, 31)
    view = View(Span(0, 19, size[0], 0), Span(0, 31, size[1], 0), angle=0.0, mirrored=False)
    assert np.array_equal(
        render(example["image"], view, size, IMAGE_SAMPLING),
        cv2.resize(example["image"], size[::-1], interpolation=cv2.INTER_LINEAR),
    )
    nearest = np.ix_(
        *(
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(size, (19, 31), strict=True)
        )
    )
    assert np.array_equal(
        render(example["label"], view, size, LABEL_SAMPLING), example["label"][nearest]
    )


@pytest.mark.parametrize(
    ("step", "legal"), [(0.25, {2, 3, 4, 5, 6, 7, 8}), (0.5, {2, 4, 6, 8}), (0.0, set(range(2, 9)))]
)
def test_scales_lie_in_range_and_on_their_steps(step, legal):
    """The scale shows in how wide a column of four pixels becomes."""
    augmentation = Augmentation((20, 20), 0.5, 2.0, step, flip=False)
    example = {"label": np.zeros((40, 4), np.uint8), "image": np.zeros((40, 4, 3), np.uint8)}
    crops = draws(example, augmentation, 200)
    assert {int((crop["label"][0] != 255).sum()) for crop in crops} == legal


def test_a_quarter_turn_about_the_centre_is_exact():
    source = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    whole = Span(0, 9, 9, 0)
    turned = render(source, View(whole, whole, 90.0, False), (9, 9), IMAGE_SAMPLING)
    assert any(np.array_equal(turned, np.rot90(source, quarter)) for quarter in (1, 3))


def test_rotation_moves_image_and_label_alike_and_shows_void_outside():
    rows, columns = np.indices((60, 60))
    inside = (np.hypot(rows - 20, columns - 35) < 10).astype(np.uint8)
    example = {"image": np.repeat(inside[..., None] * 200, 3, -1), "label": inside, "image_id": "x"}
    turned = dataclasses.replace(STILL, crop_size=(60, 60), rotation=40.0)
    crops = draws(example, turned, 10)
    assert sum((crop["label"] == 255).any() for crop in crops) >= 8
    for crop in crops:
        known = crop["label"] != 255
        # A blend of mean pixel and image at the edge, pure mean pixel beyond.
        assert (np.abs(crop["image"][~known].astype(int) - MEAN_PIXEL) > 80).sum() < 120
        bright = crop["image"][..., 0] > 100
        assert (bright[known] == crop["label"][known]).mean() > 0.96


def test_photometric_distortion_leaves_label_and_padding():
    example = coordinate_example(5, 8)
    for crop in draws(example, dataclasses.replace(STILL, photometric=1.0), 10):
        assert np.array_equal(crop["label"][:5], example["label"])
        assert (crop["image"][5:] == MEAN_PIXEL).all()
        assert not np.array_equal(crop["image"][:5], example["image"])
        shift = crop["image"][:5].astype(float) - example["image"]
        assert np.abs(shift).mean() < 140


def test_no_photometric_strength_is_the_image_itself(photo):
    assert distort(photo, np.random.default_rng(0), 0.0) is photo


def test_distortion_does_not_move_the_crop():
    plain = Augmentation((9, 8))
    distorted = dataclasses.replace(plain, photometric=0.7)
    example = coordinate_example(40, 40)
    for one, other in zip(draws(example, plain, 8), draws(example, distorted, 8), strict=True):
        assert np.array_equal(one["label"], other["label"])


@pytest.mark.parametrize("side", [33, 49])
def test_resizing_comes_before_scale_and_crop(side):
    """A plane of 100 × 60 is brought to the range; a crop of that size shows all of it."""
    example = coordinate_example(100, 60)
    size = size_in_range((100, 60), side, side, 16)
    augmentation = Augmentation(
        size, 1.0, 1.0, flip=False, min_resize=side, max_resize=side, resize_factor=16
    )
    (crop,) = draws(example, augmentation, 1)
    assert (crop["label"] != 255).all()
    assert np.array_equal(
        crop["image"], cv2.resize(example["image"], size[::-1], interpolation=cv2.INTER_LINEAR)
    )
    half = dataclasses.replace(augmentation, min_scale=0.5, max_scale=0.5)
    (crop,) = draws(example, half, 1)
    known = crop["label"] != 255
    assert known.sum() == round(size[0] / 2) * round(size[1] / 2)


def halves() -> dict:
    """A label of class 0 on the left half, 1 on the right, void in the uppermost rows."""
    label = np.repeat(np.arange(60)[None] // 30, 40, 0).astype(np.uint8)
    label[:10] = 255
    return {"image": np.zeros((40, 60, 3), np.uint8), "label": label, "image_id": "x"}


def largest_share(label: np.ndarray) -> float:
    counts = np.bincount(label[label != 255], minlength=2)
    return counts.max() / max(counts.sum(), 1)


def test_crops_that_one_class_fills_are_drawn_again():
    first = Augmentation((20, 20), 1.0, 1.0, flip=False)
    again = dataclasses.replace(first, max_class_fraction=0.75)
    shares = [largest_share(crop["label"]) for crop in draws(halves(), first, 200)]
    better = [largest_share(crop["label"]) for crop in draws(halves(), again, 200)]
    # A quarter of the positions is good; ten draws miss it with a chance of 0.75¹⁰, 6 %.
    assert 0.6 < np.mean(np.array(shares) >= 0.75) < 0.9
    assert np.mean(np.array(better) >= 0.75) < 0.12
    # Where the first draw is good it is the crop.
    for seed, share in enumerate(shares):
        assert share >= 0.75 or better[seed] == share


def test_a_crop_is_taken_at_last_when_none_is_good():
    only = coordinate_example(30, 30) | {"label": np.full((30, 30), 3, np.uint8)}
    hopeless = Augmentation((20, 20), max_class_fraction=0.5)
    for crop in draws(only, hopeless, 5):
        assert set(np.unique(crop["label"])) <= {3, 255}
    void = only | {"label": np.full((30, 30), 255, np.uint8)}
    assert (draws(void, hopeless, 1)[0]["label"] == 255).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_resize": -1},
        {"max_class_fraction": 0.0},
        {"max_class_fraction": 1.5},
        {"min_scale": 0.0},
        {"min_scale": 3.0},
        {"crop_size": (0, 5)},
    ],
)
def test_illegal_augmentation(wrong):
    with pytest.raises(DeepLabError, match=next(iter(wrong))):
        Augmentation(**({"crop_size": (5, 5)} | wrong))


def test_pad_to():
    fill = (124, 116, 104)
    padded = pad_to(coordinate_example(4, 6), (5, 8), fill)
    assert padded["image"].shape == (5, 8, 3)
    assert (padded["label"][4:] == 255).all()
    assert (padded["image"][:, 6:] == fill).all()
    with pytest.raises(DeepLabError, match="larger than the evaluation size 4x5"):
        pad_to(coordinate_example(4, 6), (4, 5), fill)


@pytest.mark.parametrize(("rotation", "scales"), [(40.0, (0.7, 3.0)), (0.0, (0.1, 0.12))])
def test_images_longer_than_opencv_warps_are_cut_out(monkeypatch, rotation, scales):
    """OpenCV 4 refuses to warp sides above 32766 pixels, and resizes such labels wrongly."""
    noise = np.random.default_rng(0)
    image = noise.integers(0, 2**16, (60, 301, 5), np.uint16)
    label = noise.integers(0, 5, (60, 301), np.uint8)
    sampling, size = IMAGE_SAMPLING._replace(outside=(9,) * 5), (33, 49)

    def rendered(view):
        crops = render(image, view, size, sampling), render(label, view, size, LABEL_SAMPLING)
        return crops[0].astype(int), crops[1]

    for seed in range(20):
        random = np.random.default_rng(seed)
        scale = (random.uniform(*scales),) * 2
        view = random_view(random, label.shape, size, scale=scale, rotation=rotation, flip=True)
        expected = rendered(view)
        with monkeypatch.context() as patch:
            patch.setattr("deeplab_jax.data.crops.MAX_SIDE", 150)
            found = rendered(view)
        assert np.abs(found[0] - expected[0]).mean() < 1
        assert (found[1] != expected[1]).mean() < 0.03


def test_parts_that_are_still_too_long_keep_their_position(monkeypatch):
    label = np.repeat(np.arange(300, dtype=np.uint8)[None] // 30, 60, axis=0)
    view = View(Span(0, 60, 9, 0), Span(0, 300, 45, 0), 3.0, False)
    expected = render(label, view, (33, 49), LABEL_SAMPLING)
    monkeypatch.setattr("deeplab_jax.data.crops.MAX_SIDE", 150)
    found = render(label, view, (33, 49), LABEL_SAMPLING)
    assert (found != expected).mean() < 0.05
    assert np.unique(found).tolist() == np.unique(expected).tolist()


def test_random_view_shows_no_more_than_there_is():
    for seed in range(300):
        random = np.random.default_rng(seed)
        source, size = random.integers(1, 60, 2).tolist(), random.integers(1, 60, 2).tolist()
        scale = random.uniform(0.3, 3, 2).tolist()
        view = random_view(random, source, size, scale=scale, rotation=0.0, flip=True)
        for span, length, crop in zip((view.rows, view.columns), source, size, strict=True):
            assert 0 <= span.start < span.stop <= length
            assert span.offset >= 0
            assert span.size >= 1
            assert span.offset + crop <= span.size or (span.start, span.stop) == (0, length)
