import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile

from deeplab_jax.data.masks import identity_labels, mask_values, read_colored_mask, read_mask
from deeplab_jax.errors import DeepLabError

INDICES = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
COLORS = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 64, 7): 2, (255, 255, 255): 255}


def paint(indices: np.ndarray) -> np.ndarray:
    color_of = {label: color for color, label in COLORS.items()}
    return np.array([[color_of[value] for value in row] for row in indices.tolist()], np.uint8)


def palette_image(indices: np.ndarray) -> PIL.Image.Image:
    image = PIL.Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    palette = np.zeros((256, 3), np.uint8)
    for color, label in COLORS.items():
        palette[label] = color
    image.putpalette(palette.tobytes())
    return image


@pytest.mark.parametrize(
    "stored",
    [
        INDICES,
        palette_image(INDICES),
        np.repeat(INDICES[..., None], 3, -1),
        np.dstack([INDICES] * 3 + [np.full_like(INDICES, 9)]),
        INDICES.astype(np.uint16),
    ],
    ids=["grey", "palette", "grey in RGB", "grey in RGBA", "16 bits"],
)
def test_indices_are_read_from_every_kind(save, stored):
    path = save("m.png", stored)
    assert np.array_equal(read_mask(path, identity_labels(3)), INDICES)
    assert mask_values(path) == {0, 1, 2, 255}


def test_one_bit_mask(save):
    path = save("m.png", PIL.Image.fromarray(INDICES == 1))
    assert np.array_equal(read_mask(path, identity_labels(2)), INDICES == 1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_the_values_of_a_tiff_with_a_white_zero_are_those_in_the_file(tmp_path, dtype):
    """By default, tifffile and scikit-image write a boolean array as such a TIFF."""
    stored = np.minimum(INDICES, 1).astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", stored, photometric="miniswhite")
    assert np.array_equal(read_mask(tmp_path / "m.tif", identity_labels(2)), stored)


def test_labels_are_translated(save):
    labels = {0: 255, 1: 0, 2: 1, 255: 255}
    read = read_mask(save("m.png", INDICES), labels)
    assert read.tolist() == [[255, 0, 1], [1, 255, 255]]


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (
            INDICES + np.uint8(7),
            r"mask value 6 \(1 pixels\), 7 \(2 pixels\), 8 .*legal: classes 0\.\.2, void 255",
        ),
        (INDICES.astype(np.uint16) * 300, r"mask value 300 \(1 pixels\), 600"),
        (paint(INDICES), r"use `prepare folder` with a color map \(--color_map\)"),
    ],
    ids=["value", "16 bits", "colors"],
)
def test_illegal_masks_are_named_with_value_and_count(save, pixels, complaint):
    with pytest.raises(DeepLabError, match=rf"m\.png: .*{complaint}"):
        read_mask(save("m.png", pixels), identity_labels(3))


@pytest.mark.parametrize("stored", [paint(INDICES), palette_image(INDICES)])
def test_painted_masks(save, stored):
    assert np.array_equal(read_colored_mask(save("m.png", stored), COLORS), INDICES)


def test_unknown_color_is_named(save):
    painted = paint(INDICES)
    painted[0, :2] = (1, 2, 3)
    with pytest.raises(DeepLabError, match=r"m\.png: illegal color \(1, 2, 3\) \(2 pixels\)"):
        read_colored_mask(save("m.png", painted), COLORS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [INDICES, palette_image(INDICES)], ids=["grey", "palette"])
def test_masks_are_upright_as_their_images_are(save, stored, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save("x.png", stored, exif=exif)
    expected = np.array(PIL.ImageOps.exif_transpose(PIL.Image.open(path)))
    assert np.array_equal(read_mask(path, identity_labels(3)), expected)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.array([[0, -1]], np.int32), r"mask value -1 \(1 pixels\); legal: classes 0..2"),
        (np.array([[0, 70_000]], np.int32), r"mask value 70000 \(1 pixels\)"),
        (np.array([[0, 1]], np.float32), "floating-point numbers; save class indices as integers"),
    ],
)
def test_mask_values_that_are_not_indices_are_refused(save, values, complaint):
    path = save("x.tif", values)
    with pytest.raises(DeepLabError, match=rf"x\.tif: .*{complaint}"):
        read_mask(path, identity_labels(3))
