"""The page of a comparison: right numbers, nothing from elsewhere, nothing that breaks it."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.errors import DeepLabError
from deeplab_jax.metrics import ConfusionMatrix
from experiments.compare import parse_models
from experiments.comparison import Compared, Comparison, Shown, class_maps, html_page
from experiments.comparison.pictures import (
    VOID,
    WRONG,
    error_map,
    shown_names,
    trimap_curves,
)

NAMES = ("background", "<script>alert('x')</script>", "tree")
PALETTE = ((0, 0, 0), (200, 10, 10), (10, 200, 10))


def comparison(trimap):
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (33, 41))
    truth[0] = 255
    maps = {"v1 & co": random.integers(0, 2, (33, 41)), 'v3"+': np.where(truth == 255, 0, truth)}
    models = {}
    for name, class_map in maps.items():
        counts = ConfusionMatrix.from_labels(truth, class_map, 3)
        ious = [None if np.isnan(iou) else float(iou) for iou in counts.per_class_iou]
        metrics = {
            "mean_iou": counts.mean_iou,
            "pixel_accuracy": counts.pixel_accuracy,
            "boundary_f_score": None,
            "per_class_iou": dict(zip(NAMES, ious, strict=True)),
            "trimap_mean_iou": trimap,
            "confusion_matrix": counts.counts.tolist(),
        }
        models[name] = Compared(metrics, 1_234_567, 2_500_000_000, 0.25)
    image = random.integers(0, 256, (33, 41, 3)).astype(np.uint8)
    shown = Shown("im<age>&1", image, truth, maps)
    return Comparison("shapes/val, 1 images", NAMES, PALETTE, models, (shown,))


def test_a_page_is_one_file_and_escapes_what_it_is_given():
    page = html_page(comparison({"1": 0.5, "5": None}), "v1 <b>& v3", "--models=<x>")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    # Image, truth and two times two pictures; bars, curves, speed, two matrices.
    assert len(sources) == 2 + 4 + 5
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<script|<link|@import|url\(|https?:", page)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page
    for text in (
        "v1 &lt;b&gt;&amp; v3",
        "v1 &amp; co",
        "v3&quot;+",
        "im&lt;age&gt;&amp;1",
        "=&lt;x",
    ):
        assert text in page
    assert "<td>100.00</td>" in page
    assert "<td>1.23</td><td>2.50</td><td>250</td>" in page
    assert page.isascii() or 'charset="utf-8"' in page


def test_the_classes_alone_are_a_picture_of_their_colours():
    found = comparison(None)
    assert shown_names(found) == dict(zip(NAMES, PALETTE, strict=True)) | {"void": VOID}
    picture = np.asarray(Image.open(io.BytesIO(class_maps(found))).convert("RGB"))
    colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    # Colours of the palette, and nothing of the image between black, white and grey.
    assert {(200, 10, 10), (10, 200, 10)} <= colors
    saturated = picture[(np.ptp(picture.astype(int), axis=-1) > 100)]
    assert np.isin(saturated.argmax(-1), (0, 1)).all()


def test_without_void_there_are_no_curves():
    found = comparison(None)
    assert trimap_curves(found.models) is None
    assert "Near boundaries" not in html_page(found, "x")


def test_errors_are_red_and_void_is_grey():
    truth = np.array([[0, 1, 255], [2, 2, 2]])
    prediction = np.array([[0, 2, 1], [2, 0, 2]])
    picture = error_map(np.full((2, 3, 3), 100, np.uint8), truth, prediction)
    red = (picture == WRONG).all(-1)
    assert red.tolist() == [[False, True, False], [False, True, False]]
    assert tuple(picture[0, 2]) == VOID
    assert tuple(picture[0, 0]) == (201, 201, 201)


def test_models_are_named():
    assert parse_models(["a=x", "b=y=z"]) == {"a": "x", "b": "y=z"}
    for texts in (["x"], ["=x"], ["a="], ["a=x", "a=y"]):
        with pytest.raises(DeepLabError, match=r"is not NAME=MODEL|twice"):
            parse_models(texts)
