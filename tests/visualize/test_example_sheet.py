"""The sheet of training examples shows each image above its label."""

import numpy as np

from deeplab_jax.visualize import example_sheet

PALETTE = ((10, 20, 30), (200, 100, 0))


def test_images_labels_and_rows():
    images = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.full(
        (3, 4, 6, 3), 40, np.uint8
    )
    labels = np.zeros((3, 4, 6), np.uint8)
    labels[1], labels[2, 0] = 1, 255
    sheet = example_sheet(images, labels, ("sky", "road"), PALETTE, columns=2)
    # Two rows of cells of 2 · 4 + 8 by 6 + 8 pixels, and the legend.
    assert sheet.shape[1] == 2 * (6 + 8)
    assert (sheet[:4, :6] == 40).all()
    assert (sheet[4:8, :6] == PALETTE[0]).all()
    assert (sheet[:4, 14:20] == 80).all()
    assert (sheet[4:8, 14:20] == PALETTE[1]).all()
    assert (sheet[16:20, :6] == 120).all()
    assert (sheet[20, :6] != PALETTE[0]).any()
    assert (sheet[21:24, :6] == PALETTE[0]).all()
    # The last cell of the second row is empty.
    assert (sheet[16:24, 14:20] == 255).all()
    assert sheet.shape[0] > 2 * (2 * 4 + 8)


def test_more_bands_are_displayed():
    image = np.zeros((1, 4, 6, 5), np.uint16)
    assert example_sheet(image, np.zeros((1, 4, 6), np.uint8), ("a",), PALETTE[:1]).ndim == 3
