import numpy as np
import pytest
from PIL import Image

from deeplab_jax import visualize
from deeplab_jax.labels import VOID_COLOR

PALETTE = ((0, 0, 0), (200, 10, 20), (3, 250, 7))


@pytest.fixture
def class_map():
    result = np.zeros((17, 23), np.int32)
    result[4:9, 5:12], result[10:, 15:], result[0] = 1, 2, 255
    return result


def test_colors_are_the_palette_and_void_is_light(class_map):
    colors = visualize.colorize(class_map, PALETTE)
    assert colors.dtype == np.uint8
    for index, color in [*enumerate(PALETTE), (255, VOID_COLOR)]:
        assert (colors[class_map == index] == color).all()


@pytest.mark.parametrize(
    "values", [np.array([[0, 3, 254, 300, 65535, -1, -300]]), np.array([[0, 3, 65535]], np.uint16)]
)
def test_all_values_that_are_no_class_are_drawn_as_void(values):
    colors = visualize.colorize(values, PALETTE)
    assert colors.dtype == np.uint8
    assert (colors[0, 0] == PALETTE[0]).all()
    assert (colors[0, 1:] == VOID_COLOR).all()
    image = np.full((*values.shape, 3), 100, np.uint8)
    assert visualize.overlay(image, values, PALETTE).shape == image.shape


def test_class_map_file_holds_indices_and_palette(class_map, tmp_path):
    visualize.write_class_map(tmp_path / "new" / "map.png", class_map, PALETTE)
    with Image.open(tmp_path / "new" / "map.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), class_map)
        shown = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(shown, visualize.colorize(class_map, PALETTE))


def test_overlay_blends_classes_and_keeps_background_and_void(class_map):
    image = np.full((*class_map.shape, 3), 100, np.uint8)
    result = visualize.overlay(image, class_map, PALETTE, opacity=0.5)
    assert (result[2, 2] == 100).all()
    assert (result[0, 3] != 255).all()
    np.testing.assert_array_equal(result[6, 8], [150, 55, 60])
    assert (result[6, 11] > 180).all(), "a light line stands where classes meet"


@pytest.mark.parametrize("names", [[], ["one"], [f"a rather long name {i}" for i in range(12)]])
def test_legend_strip_has_the_width_and_every_color(names):
    colors = {name: (10 * index + 1, 7, 9) for index, name in enumerate(names)}
    strip = visualize.legend_strip(colors, width=300)
    assert strip.shape[1:] == (300, 3)
    found = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
    assert set(colors.values()) <= found


def test_contact_sheet_shows_images_of_any_size_and_names_what_occurs():
    truth = np.array([[1, 255]] * 2, np.uint8)
    rows = [
        visualize.Panel(np.full((2, 2, 3), 9, np.uint8), truth, np.zeros((2, 2), np.int32)),
        visualize.Panel(*(np.ones(shape, np.uint8) for shape in [(5, 3, 3), (5, 3), (5, 3)])),
    ]
    sheet = visualize.contact_sheet(rows, ["sky", "tree", "car"], PALETTE, cell_width=60)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 3 * 68 + 8
    found = {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()}
    assert {(9, 9, 9), PALETTE[1], VOID_COLOR} <= found
    assert PALETTE[2] not in found


def test_very_high_images_are_narrower_than_a_cell_of_the_contact_sheet():
    image, class_map = np.full((900, 2, 3), 9, np.uint8), np.ones((900, 2), np.uint8)
    panel = visualize.Panel(image, class_map, class_map)
    sheet = visualize.contact_sheet([panel], ["sky", "tree", "car"], PALETTE, cell_width=60)
    assert sheet.shape[1] == 3 * 68 + 8
    assert 8 * 60 < sheet.shape[0] < 10 * 60
    assert (sheet == PALETTE[1]).all(axis=-1).any()
