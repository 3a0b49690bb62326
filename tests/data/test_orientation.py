"""Labels lie on their images whatever EXIF says, or the pair is refused."""

import functools

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.codecs import decode_image
from deeplab_jax.data.orientation import stored_size, turned, turned_back
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError

STORED_LABEL = np.arange(6 * 9).reshape(6, 9) % 5 % 3
TURNING = [6, 8, 5, 7]


def exif(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_viewers_do_and_can_be_undone(orientation):
    pixels = np.random.default_rng(orientation).integers(0, 256, (6, 9, 3), np.uint8)
    image = PIL.Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    displayed = np.array(PIL.ImageOps.exif_transpose(image))
    assert np.array_equal(turned(pixels, orientation), displayed)
    assert np.array_equal(turned_back(displayed, orientation), pixels)
    assert stored_size(displayed.shape[:2], orientation) == (6, 9)


@pytest.fixture
def pair(save, tmp_path, reporter):
    """Prepares an image whose red is 80 times its label, and returns both as they are stored."""
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")

    def prepared(orientation, mask, mask_orientation=1, label=STORED_LABEL, kind="png", **options):
        image = np.repeat(np.uint8(label * 80)[..., None], 3, -1)
        save(f"images/train/x.{kind}", image, exif=exif(orientation))
        save("masks/train/x.png", np.ascontiguousarray(mask, np.uint8), exif=exif(mask_orientation))
        make = functools.partial(
            Folder, source=tmp_path, data_dir=tmp_path / "data", reporter=reporter, **options
        )
        preparation = prepare(make, overwrite=True, reporter=reporter)
        dataset = open_dataset("folder", tmp_path / "data", "train")
        assert np.array_equal(decode_image(dataset.encoded(0)[0]), dataset[0]["image"])
        return dataset[0]["image"][..., 0] // 80, dataset[0]["label"], preparation.notes

    return prepared


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("orientation", TURNING)
def test_sizes_decide_where_they_can(pair, orientation, kind):
    image, label, notes = pair(orientation, STORED_LABEL, kind=kind)
    assert image.shape == (9, 6)
    assert np.array_equal(image, label)
    assert any("stored pixels" in note and "train/x" in note for note in notes)
    image, label, notes = pair(orientation, turned(STORED_LABEL, orientation), kind=kind)
    assert np.array_equal(image, label)
    assert not any("stored pixels" in note for note in notes)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_flag_decides_where_sizes_cannot(pair, orientation):
    square = np.random.default_rng(0).integers(0, 3, (6, 6)) if orientation > 4 else STORED_LABEL
    with pytest.raises(
        DeepLabError,
        match=rf"masks/train/x\.png.*EXIF orientation {orientation}.*--masks_drawn_on=displayed",
    ):
        pair(orientation, square, label=square)
    image, label, _ = pair(orientation, square, label=square, masks_drawn_on="stored")
    assert np.array_equal(image, label)
    on_screen = turned(square, orientation)
    image, label, _ = pair(orientation, on_screen, label=square, masks_drawn_on="displayed")
    assert np.array_equal(image, label)


def test_labels_that_turning_does_not_change_need_no_flag(pair):
    _, label, _ = pair(3, np.zeros((6, 9)))
    assert not label.any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_with_the_orientation_of_their_image_are_turned_with_it(pair, orientation):
    image, label, _ = pair(orientation, STORED_LABEL, mask_orientation=orientation)
    assert np.array_equal(image, label)


def test_other_sizes_are_refused_and_exif_is_named(pair):
    with pytest.raises(
        DeepLabError, match=r"mask is 6x8 .*image x\.png is 9x6.*EXIF.* 6 of the image"
    ):
        pair(6, STORED_LABEL[:, :8])
