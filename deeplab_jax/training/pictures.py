"""What a finished run shows: curves, and predictions beside the truth."""

import pathlib

import numpy as np

from deeplab_jax.data import Dataset
from deeplab_jax.inference import load
from deeplab_jax.parallel import is_first_host
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.monitors import read_rows
from deeplab_jax.visualize import Row, contact_sheet, write_picture, write_training_curves

CURVES_FILE = "curves.png"
SHEET_FILE = "contact_sheet.png"
SHEET_ROWS = 6


def draw_pictures(workdir: pathlib.Path, validation: Dataset, reporter: Reporter) -> None:
    """Writes `curves.png` and, with the best checkpoint, `contact_sheet.png`; in process 0 alone.

    Args:
      workdir: of the run, with at least one checkpoint.
      validation: of which evenly spread images are shown.
      reporter: hears where the pictures are.
    """
    # All processes: Orbax reads together, even where one would do.
    predictor = load(workdir)
    if not is_first_host():
        return
    write_training_curves(workdir / CURVES_FILE, read_rows(workdir))
    count = min(SHEET_ROWS, len(validation))
    positions = np.linspace(0, len(validation) - 1, count).round().astype(int)
    examples = [validation[int(position)] for position in positions]
    predictions = predictor.predict_batch([example["image"] for example in examples])
    rows = [
        Row(example["image"], example["label"], prediction)
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    sheet = contact_sheet(rows, predictor.class_names, predictor.palette)
    write_picture(workdir / SHEET_FILE, sheet)
    reporter.message(f"pictures: {workdir / CURVES_FILE}, {workdir / SHEET_FILE}")
