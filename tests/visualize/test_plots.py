import numpy as np
import pytest
from PIL import Image

from deeplab_jax import visualize


def ink(path):
    """Returns how many pixels of a picture are not white."""
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("RGB")) < 250).any(-1).sum())


def test_curves_have_a_panel_for_each_known_quantity(tmp_path):
    steps = [{"step": step, "loss": 1 / step, "images_per_second": 3.0} for step in range(1, 200)]
    validation = [{"step": step, "validation_mean_iou": step / 200} for step in (100, 200)]
    widths = []
    for name, rows in {"none": [], "loss": steps, "both": steps + validation}.items():
        visualize.write_training_curves(tmp_path / f"{name}.png", rows)
        with Image.open(tmp_path / f"{name}.png") as picture:
            widths.append(picture.width)
    assert widths[0] == widths[1] < widths[2]
    assert ink(tmp_path / "loss.png") > ink(tmp_path / "none.png")


@pytest.mark.parametrize("num_classes", [2, 40])
def test_confusion_matrix_is_drawn_for_few_and_many_classes(num_classes, tmp_path):
    counts = np.eye(num_classes, dtype=np.int64) * 7
    counts[1] = 0
    # matplotlib would read two dollar signs as a formula, and refuse an invalid one.
    names = [f"class $\\frac{index}$" for index in range(num_classes)]
    visualize.write_confusion_matrix(tmp_path / "matrix.png", counts, names)
    assert ink(tmp_path / "matrix.png") > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.png"]
