"""What `evaluate` counts and `predict` gives on drawn shapes, under every strategy."""

import jax
import numpy as np
import pytest
from golden.recording import FOLDER, recorded
from random_variables import random_variables
from selection import slow_unless

from deeplab_jax.crf import CRFParameters
from deeplab_jax.data import ArrayDataset
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.evaluation import evaluate
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.models import create_model

STRATEGIES = {
    "whole": InferenceOptions(),
    "tiles": InferenceOptions(tile=(49, 49), overlap=0.2),
    "scales": InferenceOptions(scales=(0.5, 1.0, 1.5)),
    "flip": InferenceOptions(flip=True),
    "crf": InferenceOptions(crf=CRFParameters(4.0, 5.0, 20.0, 3.0, 2.0, iterations=2)),
}
# Two rounding errors apart, a tie may go the other way.
UNLIKE = 0.001


@pytest.fixture(scope="module")
def dataset():
    """Parts of drawn scenes, stored because versions of OpenCV draw some pixels differently."""
    with np.load(FOLDER / "strategies" / "scenes.npz") as scenes:
        images, labels = ([scenes[f"{kind}_{n}"] for n in range(3)] for kind in ("image", "label"))
    return ArrayDataset(images, labels, class_names=SHAPES.class_names)


@pytest.fixture(scope="module")
def predictor():
    model = create_model(
        "deeplab_v3plus",
        backbone="mobilenet_v2",
        depth_multiplier=0.25,
        num_classes=len(SHAPES.class_names),
        aspp_channels=8,
        decoder_convs=((3, 8),),
    )
    variables = random_variables(model, np.zeros((1, 33, 33, 3), np.uint8))
    return Predictor(model, jax.device_get(variables), SHAPES.class_names, SHAPES.palette)


# tests/inference/test_fusion.py compares scales and flips with NumPy; the CRF refines whole images.
@pytest.mark.parametrize("strategy", slow_unless(("tiles", "crf").__contains__, STRATEGIES))
def test_metrics_and_masks(dataset, predictor, strategy):
    options = STRATEGIES[strategy]
    metrics = evaluate(predictor, dataset, options=options, batch_size=2)
    metrics.pop("settings")
    applied = predictor.with_options(options)
    masks = [applied(dataset[index]["image"]).tolist() for index in range(len(dataset))]
    found = {"metrics": metrics, "masks": [_runs(mask) for mask in masks]}
    stored = recorded(f"strategies/{strategy}.json", found)
    pixels = sum(len(mask) * len(mask[0]) for mask in masks)
    unlike = sum(
        np.count_nonzero(np.array(mask).ravel() != _pixels(runs))
        for mask, runs in zip(masks, stored["masks"], strict=True)
    )
    assert unlike <= UNLIKE * pixels
    moved = np.abs(
        np.subtract(metrics["confusion_matrix"], stored["metrics"]["confusion_matrix"])
    ).sum()
    assert moved <= 2 * UNLIKE * pixels
    for name in ("mean_iou", "pixel_accuracy", "mean_dice", "boundary_f_score"):
        assert metrics[name] == pytest.approx(stored["metrics"][name], abs=2 * UNLIKE)


def _runs(mask):
    """Returns a class map as alternating classes and run lengths, row after row."""
    flat = np.array(mask).ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    lengths = np.diff(starts, append=flat.size)
    runs = np.stack([flat[starts], lengths], 1).ravel()
    return " ".join(map(str, runs))


def _pixels(runs):
    values = np.array(runs.split(), int)
    return np.repeat(values[::2], values[1::2])
