"""Time against sizes: what is measured, how it is fitted, and the files of it."""

import csv
import json

import PIL.Image
import pytest

from deeplab_jax.benchmark import scaling
from deeplab_jax.benchmark.scaling import Point, exponents, series, table, write_csv, write_plot
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run


def _points(exponent: float) -> list[Point]:
    """Returns two output strides whose time grows with that power of the pixels."""
    shapes = [(129, 1), (65, 1), (257, 1), (129, 2), (129, 4)]
    return [
        Point(stride, side, side, batch, 1e-6 / stride * (side * side) ** exponent, None, 1.0)
        for stride in (16, 8)
        for side, batch in shapes
    ]


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.3])
def test_exponents_are_found(exponent):
    assert exponents(_points(exponent)) == pytest.approx({16: exponent, 8: exponent})


def test_one_size_has_no_exponent():
    assert exponents(_points(1.0)[:1]) == {}


def test_series_change_one_quantity():
    by_pixels, by_batch = (dict(series(_points(1.0), name)) for name in ("pixels", "batch_size"))
    assert [(point.height, point.batch_size) for point in by_pixels[8]] == [
        (65, 1),
        (129, 1),
        (257, 1),
    ]
    assert [(point.height, point.batch_size) for point in by_batch[16]] == [
        (129, 1),
        (129, 2),
        (129, 4),
    ]


def test_files_hold_all_points(tmp_path):
    points = _points(1.0)
    write_csv(tmp_path / "new" / "points.csv", points)
    with (tmp_path / "new" / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["height"]) for row in rows] == [point.height for point in points]
    assert float(rows[0]["seconds_per_image"]) == points[0].seconds_per_image
    write_plot(tmp_path / "plot.png", points, "made up")
    with PIL.Image.open(tmp_path / "plot.png") as image:
        assert image.width > 500


def test_tables_have_one_line_per_point():
    lines = table([Point(16, 65, 129, 2, 0.0123, 5_000_000, 1.0)])
    assert lines[1].split() == ["16", "2", "65x129", "12.3", "5"]


@pytest.mark.slow
def test_command_measures_each_shape_once(tmp_path, capsys):
    arguments = ["--network=deeplab_v3/mobilenet_v2", "--sizes=33x33,49x65", "--batch_sizes=1,2"]
    arguments += ["--output_strides=16", "--repetitions=1", f"--output={tmp_path}", "--json"]
    assert run(["benchmark", "scaling", *arguments], Console()) == 0
    figures = json.loads(capsys.readouterr().out)
    shapes = [(p["batch_size"], p["height"], p["width"]) for p in figures["points"]]
    assert shapes == [(1, 33, 33), (1, 49, 65), (2, 33, 33)]
    assert all(point["seconds_per_image"] > 0 for point in figures["points"])
    assert all(point["planned_bytes"] > 8_000_000 for point in figures["points"])
    assert {file.name for file in tmp_path.iterdir()} == {"scaling.csv", "scaling.png"}


def test_an_output_that_cannot_be_written_is_refused_before_the_measurement(
    tmp_path, monkeypatch, capsys
):
    measured = []
    monkeypatch.setattr(scaling, "measure_scaling", lambda *_, **__: measured.append(1))
    (tmp_path / "file").touch()
    shapes = ["shapes", f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'file'}"]
    for words in (["scaling", f"--output={tmp_path / 'file'}"], shapes):
        assert run(["benchmark", *words], Console()) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not measured


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--batch_sizes=1,none", "1,2,4,8"),
        ("--output_strides=0", "32,16,8"),
        ("--sizes=513", "513x513"),
        ("--network=deeplab_v3plu/mobilenet_v2", "deeplab_v3plus"),
        ("--network=deeplab_v3plus/mobilenet_v4", "mobilenet_v"),
        ("--output_strides=12", "must be one of 4, 8, 16, 32"),
    ],
)
def test_mistakes_are_reported(capsys, flag, message):
    assert run(["benchmark", "scaling", flag], Console()) == 2
    assert message in capsys.readouterr().err
