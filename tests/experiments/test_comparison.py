"""The page of a comparison: right numbers, nothing from elsewhere, nothing that breaks it."""

import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image
from reporters import RecordingReporter
from stand_ins import RedReader, random_dataset, red_predictor

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import ImageClassification, InferenceOptions, Predictor
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.models import Architecture
from experiments.commands import main
from experiments.compare import define_flags, parse_models, run
from experiments.comparison import Compared, Comparison, Shown, class_maps, compare, html_page
from experiments.comparison.pictures import (
    VOID,
    WRONG,
    class_bars,
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


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (4, np.uint8), (3, np.uint16)])
def test_images_with_other_bands_are_shown(bands, dtype):
    found = comparison(None)
    image = np.random.default_rng(0).integers(0, 256, (33, 41, bands)).astype(dtype)
    shown = dataclasses.replace(found.shown[0], image=image)
    assert "data:image/jpeg" in html_page(dataclasses.replace(found, shown=(shown,)), "x")


def test_classes_of_models_with_other_names_are_compared_by_position():
    found = comparison(None)
    other = found.models["v1 & co"]
    ious = dict(zip("abc", other.metrics["per_class_iou"].values(), strict=True))
    other = dataclasses.replace(other, metrics=other.metrics | {"per_class_iou": ious})
    changed = dataclasses.replace(found, models=dict(found.models) | {"v1 & co": other})
    assert class_bars(changed) == class_bars(found)


def test_models_that_do_not_match_the_dataset_are_refused_before_any_is_measured():
    dataset, reporter = random_dataset([(20, 31)]), RecordingReporter()
    other = Predictor(RedReader(Architecture("mobilenet_v2", num_classes=2)), {}, "ab", PALETTE[:2])
    with pytest.raises(DeepLabError, match="has 2 classes, but the dataset arrays has 4"):
        compare({"a": red_predictor(dataset), "b": other}, dataset, reporter=reporter)
    whole = ImageClassification.__new__(ImageClassification)
    whole.source = "imagenet"
    with pytest.raises(DeepLabError, match="imagenet classifies whole images"):
        compare({"a": whole}, dataset, options=InferenceOptions(), reporter=reporter)
    assert not reporter.messages


@pytest.fixture
def compared(monkeypatch):
    """Replaces loading and evaluating models; returns the list of finished comparisons."""
    finished = []

    def evaluated(*_, **__):
        finished.append(comparison(None))
        return finished[-1]

    monkeypatch.setattr("deeplab_jax.data.open_dataset", lambda *_: None)
    monkeypatch.setattr("deeplab_jax.load", lambda *_, **__: None)
    monkeypatch.setattr("experiments.comparison.compare", evaluated)
    return finished


def compare_command(*words):
    words = ("experiments.compare", "--models=v1=runs/v1", "--dataset=shapes", *words)
    return main(words, "usage", define_flags, run)


def test_a_tilde_in_the_path_of_a_page_is_the_home_directory(compared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert compare_command("--output=~/page.html", "--classes=~/classes.png") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "classes.png"}


@pytest.mark.parametrize("flag", ["output", "classes"])
def test_an_output_that_cannot_be_written_is_refused_before_the_evaluation(
    compared, tmp_path, monkeypatch, capsys, flag
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path, message in ((tmp_path / "file/x.png", "cannot be written"), (tmp_path, "directory")):
        assert compare_command(f"--{flag}={path}") == 2
        assert message in capsys.readouterr().err
    assert not compared


def test_a_limit_below_one_is_refused(capsys):
    assert main(["experiments.compare", "--limit=-1"], "usage", define_flags, run) != 0
    assert "limit" in capsys.readouterr().err


def test_names_with_dollar_signs_are_shown():
    name, found = "a $\\frac$", comparison({"1": 0.5})
    models = {name: found.models["v1 & co"], "b $_$": found.models['v3"+']}
    shown = (
        dataclasses.replace(
            found.shown[0], predictions=dict.fromkeys(models, found.shown[0].truth)
        ),
    )
    changed = dataclasses.replace(found, models=models, shown=shown, class_names=(name, "b", "c"))
    assert class_maps(changed)
    assert "a $\\frac$" in html_page(changed, "x")


def test_models_are_named():
    assert parse_models(["a=x", "b=y=z"]) == {"a": "x", "b": "y=z"}
    for texts in (["x"], ["=x"], ["a="], ["a=x", "a=y"]):
        with pytest.raises(DeepLabError, match=r"must be NAME=MODEL|twice"):
            parse_models(texts)
