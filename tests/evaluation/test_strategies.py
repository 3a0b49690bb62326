"""Strategies on splits: independent of batches, the same as the predictor, compared in pairs."""

import itertools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables
from reporters import RecordingReporter
from stand_ins import Convolution, random_dataset, red_predictor

from deeplab_jax.crf import CRFParameters, dense_crf
from deeplab_jax.data import ArrayDataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import (
    compare_strategies,
    comparison_table,
    evaluate,
    papers_steps,
    strategy_steps,
)
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import FoldedNetwork
from deeplab_jax.metrics import BoundaryMatch, ConfusionMatrix, TrimapConfusion
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter

CRF = CRFParameters(4.0, 5.0, 20.0, 3.0, 2.0, iterations=2)


@pytest.fixture(scope="module")
def dataset():
    return random_dataset([(20, 31), (33, 33), (40, 7), (80, 50), (25, 25)], void=0.1)


@pytest.fixture(scope="module")
def predictor(dataset):
    model = Convolution()
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 9, 9, 3), jnp.uint8))
    names, palette = dataset.descriptor.class_names, dataset.descriptor.palette
    # Larger than every image but one: whole images are padded alike by predictor and evaluation.
    return Predictor(model, variables, names, palette, (97, 65), source="net")


def examples(dataset):
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize(
    "options",
    [
        InferenceOptions(),
        InferenceOptions(tile=(49, 49), overlap=0.1),
        InferenceOptions(tile=(33, 33), overlap=0, scales=(0.5, 1), flip=True),
        InferenceOptions(crf=CRF),
        InferenceOptions(crf=CRF, tile=(49, 49), flip=True),
    ],
    ids=["plain", "tiles", "fused tiles", "crf", "crf on tiles"],
)
def test_numbers_are_of_the_predictors_class_maps(dataset, predictor, options):
    # A CRF is compiled for each size of images.
    limit = 3 if options.crf else None
    results = [
        evaluate(
            predictor, dataset, options=options, batch_size=size, trimap_widths=(1, 3), limit=limit
        )
        for size in (1, 3)
    ]
    settings = [result.pop("settings") for result in results]
    assert [one.pop("batch_size") for one in settings] == [1, 3]
    assert settings[0] == settings[1]
    assert results[0] == results[1]
    confusion, boundary = ConfusionMatrix.empty(4), BoundaryMatch.empty(4)
    trimap = TrimapConfusion.empty(4, (1, 3))
    alone = predictor.with_options(options)
    for example in examples(dataset)[:limit]:
        labels = example["label"], alone(example["image"])
        confusion = confusion.merge(ConfusionMatrix.from_labels(*labels, 4))
        boundary = boundary.merge(BoundaryMatch.from_labels(*labels, 4))
        trimap = trimap.add(*labels)
    assert results[0]["confusion_matrix"] == confusion.counts.tolist()
    assert results[0]["boundary_f_score"] == boundary.f_score
    expected = {str(width): value for width, value in trimap.mean_iou.items()}
    assert results[0]["trimap_mean_iou"] == expected


def test_the_crf_sees_the_images_own_pixels(dataset, predictor):
    image = dataset[0]["image"]
    plain = predictor.predict(image)
    refined = predictor.with_options(InferenceOptions(crf=CRF)).predict(image)
    expected = dense_crf(np.log(plain.probabilities)[None], image[None], CRF)[0]
    np.testing.assert_allclose(refined.probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(refined.class_map, refined.probabilities.argmax(-1))
    assert (refined.class_map != plain.class_map).any()


def test_recorded_settings_include_crf_and_tiles(dataset, predictor):
    options = InferenceOptions(crf="deeplab", tile=(60, 49), overlap=0.1)
    metrics = evaluate(predictor, dataset, options=options, limit=1)
    settings = metrics["settings"]
    assert settings["crf"]["bilateral_weight"] == 5
    assert settings["crf"]["iterations"] == 10
    assert (settings["tile"], settings["overlap"], settings["size"]) == ([65, 49], 0.1, None)
    json.dumps(metrics, allow_nan=False)


def test_steps_lead_from_the_plain_network_to_the_strategy():
    options = InferenceOptions(8, (0.5, 1), True, (65, 65), 0.1, "deeplab")
    steps = strategy_steps(options)
    assert list(steps) == [
        "plain",
        "+ output stride 8",
        "+ scales 0.5, 1",
        "+ flip",
        "+ CRF",
    ]
    assert steps["plain"] == InferenceOptions(tile=(65, 65), overlap=0.1)
    assert steps["+ CRF"] == options
    assert list(strategy_steps(InferenceOptions())) == ["plain"]
    papers = papers_steps(InferenceOptions(tile=(65, 65)))
    assert [one.output_stride for one in papers.values()] == [16, 8, 8, 8, 8]
    assert {one.tile for one in papers.values()} == {(65, 65)}
    assert list(papers)[1:] == list(strategy_steps(papers["+ CRF"]))[1:]


def test_an_output_that_cannot_be_written_is_refused_before_any_strategy(
    dataset, predictor, tmp_path
):
    (tmp_path / "file").write_text("")
    reporter = RecordingReporter()
    with pytest.raises(DeepLabError, match="file cannot be written"):
        compare_strategies(
            predictor,
            dataset,
            strategy_steps(InferenceOptions()),
            output=tmp_path / "file",
            reporter=reporter,
        )
    assert not reporter.messages


def test_rows_hold_each_strategys_numbers_and_its_change(dataset, predictor, tmp_path):
    steps = strategy_steps(InferenceOptions(scales=(0.5, 1), flip=True, crf=CRF))
    rows = compare_strategies(
        predictor, dataset, steps, batch_size=2, limit=3, output=tmp_path, reporter=Reporter()
    )
    assert json.loads((tmp_path / "strategies.json").read_text()) == rows
    assert [row["strategy"] for row in rows] == list(steps)
    for row, options in zip(rows, steps.values(), strict=True):
        # The predictor's own size, which scales of 0.5 round up to a multiple of 32.
        assert row["settings"]["padded_sizes"] == [[97, 65]]
        metrics = evaluate(predictor, dataset, options=options, limit=3)
        assert row["mean_iou"] == metrics["mean_iou"]
        assert row["boundary_f_score"] == metrics["boundary_f_score"]
        assert row["seconds_per_image"] > 0
    for before, after in itertools.pairwise(rows):
        for key in ("mean_iou", "boundary_f_score"):
            change = after[f"{key}_change"]
            assert change["difference"] == pytest.approx(after[key] - before[key])
            assert change["low"] <= change["high"]
    lines = comparison_table(rows).splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("plain")
    assert f"{100 * rows[2]['mean_iou']:.2f}" in lines[3]


def test_the_time_per_image_excludes_void_examples(monkeypatch):
    # A clock that advances by 1 per image or void example of a batch, and by 10 per CRF.
    clock = [0]

    class Network(FoldedNetwork):
        def forward(self, *arguments):
            compiled = super().forward(*arguments)

            def counted(images):
                clock[0] += len(images)
                return compiled(images)

            return counted

    def refined(scores, image, parameters):
        clock[0] += 10
        return scores

    monkeypatch.setattr(
        "deeplab_jax.evaluation.comparison.time", SimpleNamespace(perf_counter=lambda: clock[0])
    )
    monkeypatch.setattr("deeplab_jax.evaluation.results.refine", refined)
    mixed = random_dataset([(20, 31), (33, 33), (80, 50), (90, 90)])
    predictor = red_predictor(mixed, make_network=Network)
    steps = strategy_steps(InferenceOptions(crf=CRF))
    for size in (1, 6):
        rows = compare_strategies(predictor, mixed, steps, batch_size=size, reporter=Reporter())
        assert [row["seconds_per_image"] for row in rows] == [1, 11]


@pytest.mark.parametrize("classes", [None, ["sky", "tree"]])
def test_the_time_per_image_excludes_compilation(classes, monkeypatch):
    # A clock that advances by 1 per image of a batch, and by 1000 when a function is called first.
    clock, called = [0], set()

    class Network(FoldedNetwork):
        def forward(self, options, finish, mesh=None):
            forward = super().forward(options, finish, mesh)

            def counted(images):
                clock[0] += len(images) + (0 if finish in called else 1000)
                called.add(finish)
                return forward(images)

            return counted

    monkeypatch.setattr(
        "deeplab_jax.evaluation.comparison.time", SimpleNamespace(perf_counter=lambda: clock[0])
    )
    same = random_dataset([(33, 33)] * 3)
    predictor = red_predictor(same, make_network=Network)
    steps = {"plain": InferenceOptions()}
    (row,) = compare_strategies(predictor, same, steps, classes=classes, reporter=Reporter())
    assert row["seconds_per_image"] == 1


def test_mistakes_show_before_anything_is_measured(dataset, predictor):
    steps = {"a": InferenceOptions(), "b": InferenceOptions(output_stride=5)}
    with pytest.raises(DeepLabError, match="output_stride=5 must be one of 4, 8, 16, 32"):
        compare_strategies(predictor, dataset, steps)
    with pytest.raises(DeepLabError, match="at least one"):
        compare_strategies(predictor, dataset, {})
    with pytest.raises(DeepLabError, match="does not support the setting uncertainty"):
        compare_strategies(predictor, dataset, {"a": steps["a"]}, uncertainty=("entropy",))
    names = [f"class {number}" for number in range(len(predictor.class_names) + 1)]
    others = ArrayDataset(dataset._images, dataset._masks, names)
    with pytest.raises(DeepLabError, match=f"classes, but the dataset arrays has {len(names)}"):
        compare_strategies(predictor, others, {"plain": InferenceOptions()})
    with pytest.raises(DeepLabError, match="applies only to whole images"):
        evaluate(predictor, dataset, size=(97, 97), options=InferenceOptions(tile=(49, 49)))
    two_classes = Predictor(
        Convolution(Architecture("mobilenet_v2", num_classes=2)), {}, "ab", [(0, 0, 0)] * 2
    )
    with pytest.raises(DeepLabError, match="has 2 classes"):
        evaluate(two_classes, dataset, options=InferenceOptions(tile=(49, 49)))
