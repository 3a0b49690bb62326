"""Reports say what is stored, to the last digit; status and selection say what is there."""

import csv
import dataclasses
import io
import json
import pathlib
import re
import shlex
import statistics
from fractions import Fraction

import pytest
from PIL import Image
from reporters import RecordingReporter

from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter
from experiments import report, status
from experiments.batch import describe, open_request, open_requests, run_here
from experiments.catalog import list_tables
from experiments.commands import main
from experiments.costs import Counter
from experiments.grid import parse_grid, shown
from experiments.jobs import is_done, make_jobs
from experiments.report import write_reports
from experiments.run import define_flags, request_name, run
from experiments.selection import select_rows
from experiments.storage import Request, training_summary
from experiments.texts import markdown

ROOT = pathlib.Path(__file__).parents[2]
# Neither has a short decimal, and their sum is rounded.
STORED = {0: 0.7321987654321123, 1: 0.1 + 0.2, 2: 2 / 3}


def fabricate(opened, seeds, *, rows=None):
    """Writes results as `run_job` would, each seed's number shifted by the row's."""
    for position, case in enumerate(opened.cases[:rows]):
        for seed in seeds:
            path = opened.storage.result(case.training, seed, case.strategy)
            path.parent.mkdir(parents=True, exist_ok=True)
            value = STORED[seed] - position / 97
            metrics = {"mean_iou": value, "trimap_mean_iou": {"1": value / 3}}
            path.write_text(json.dumps(metrics))


def opened_table(tmp_path, table="v3/table5", preset="smoke", **fields):
    request = Request(name=request_name(table, (), ""), table=table, preset=preset, **fields)
    opened = open_request(request, tmp_path)
    opened.storage.write_request(request)
    return opened


def read_csv(opened):
    path = opened.storage.folder / f"reports/{opened.request.name}.csv"
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def test_a_report_is_right_to_the_last_digit(tmp_path):
    opened = opened_table(tmp_path, seeds=3)
    fabricate(opened, STORED)
    write_reports(opened, Reporter())
    published = [75.36, 75.93, 76.58, 76.46, 77.21]
    for position, (line, value) in enumerate(zip(read_csv(opened), published, strict=True)):
        stored = [Fraction(STORED[seed] - position / 97) * 100 for seed in STORED]
        mean = sum(stored) / 3
        assert line["values"].split() == [repr(float(one)) for one in stored]
        assert line["mean"] == repr(float(mean))
        assert line["standard_deviation"] == repr(statistics.stdev(map(float, stored)))
        assert float(line["published"]) == value
        assert line["difference"] == repr(float(mean - Fraction(str(value))))
        assert line["seeds"] == "3"
    text = (opened.storage.folder / "reports/v3-table5.md").read_text("utf-8")
    first = Fraction(statistics.fmean(STORED.values())) * 100
    assert f"| 75.36 | {float(first):.2f} |" in text
    assert "Rows with results: 5 of 5." in text
    assert "preset `smoke` has smaller data" in text
    picture = (opened.storage.folder / "reports/v3-table5.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_small_networks_are_compared_with_the_first_row_seed_by_seed(tmp_path):
    opened = opened_table(tmp_path, seeds=3)
    fabricate(opened, STORED)
    # One seed of the third row is missing; what the others have in common with it is taken.
    case = opened.cases[2]
    opened.storage.result(case.training, 0, case.strategy).unlink()
    second = opened.storage.result(case.training, 2, case.strategy)
    second.write_text(json.dumps({"mean_iou": STORED[2] + 0.01, "trimap_mean_iou": None}))
    write_reports(opened, Reporter())
    text = (opened.storage.folder / "reports/v3-table5.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    changes = [row[6] for row in rows]
    assert changes[:2] == ["", f"{-100 / 97:+.2f} ± 0.00"]
    both = (-200 / 97, 1.0)
    assert changes[2] == f"{sum(both) / 2:+.2f} ± {statistics.stdev(both):.2f}"
    change = "Change: difference from the first measured row; mean ± standard deviation over seeds"
    assert change in text


def test_a_table_that_is_half_done(tmp_path):
    opened = opened_table(tmp_path, seeds=2)
    fabricate(opened, [0], rows=2)
    write_reports(opened, Reporter())
    lines = read_csv(opened)
    assert [line["seeds"] for line in lines] == ["1", "1", "0", "0", "0"]
    assert lines[0]["standard_deviation"] == lines[2]["mean"] == lines[2]["difference"] == ""
    text = (opened.storage.folder / "reports/v3-table5.md").read_text("utf-8")
    assert re.search(r"Rows with results: 2 of 5.\nNot run: multi-grid \(1, 2, 4\)", text)
    jobs = make_jobs(opened.cases, 2)
    assert [is_done(job, opened.storage) for job in jobs] == [True, True] + [False] * 8
    (again,) = open_requests(tmp_path, Reporter())
    assert again.request == opened.request
    assert [case.training.key for case in again.cases] == [
        case.training.key for case in opened.cases
    ]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_partial_table_is_plotted(tmp_path, rows):
    opened = opened_table(
        tmp_path, table="own/decoder", seeds=1, grid=["model.atrous_rates=(1,2,3),(2,4,6),(3,6,9)"]
    )
    fabricate(opened, [0], rows=rows)
    # matplotlib warns of a layout that has no room, and warnings are errors here.
    write_reports(opened, Reporter())
    picture = opened.storage.folder / f"reports/{opened.request.name}.png"
    with Image.open(picture) as image:
        assert image.height < 300


def test_a_difference_is_taken_seed_by_seed(tmp_path):
    opened = opened_table(tmp_path, "v3plus/figure5", seeds=2)
    fabricate(opened, [0, 1])
    write_reports(opened, Reporter())
    bilinear, decoder = read_csv(opened)[:2]
    # The mean IoU of the row that is subtracted is not a difference.
    assert (bilinear["metric"], decoder["metric"]) == ("mIoU", "delta mIoU")
    text = (opened.storage.folder / "reports/v3plus-figure5.md").read_text("utf-8")
    changes_of_rows = [line.split(" | ")[6] for line in text.splitlines() if "decoder |" in line]
    assert all(abs(float(change.partition(" ")[0] or 0)) < 5 for change in changes_of_rows)
    bands = [[(STORED[seed] - position / 97) / 3 for seed in (0, 1)] for position in (0, 1)]
    changes = [
        float(Fraction(after) * 100 - Fraction(before) * 100)
        for before, after in zip(*bands, strict=True)
    ]
    assert decoder["values"].split() == [repr(change) for change in changes]
    assert decoder["published"] == "4.8"


def test_a_difference_is_that_of_two_rows_at_the_same_point_of_a_grid(tmp_path):
    grid = ("training.batch_size=4,8",)
    opened = opened_table(tmp_path, "v3plus/figure5", preset="paper", grid=grid)
    fabricate(opened, [0])
    write_reports(opened, Reporter())
    # The cases are bilinear and decoder of ResNet-101, each with both batch sizes.
    bilinear, decoder = (read_csv(opened)[start : start + 2] for start in (0, 2))
    for position, (before, after) in enumerate(zip(bilinear, decoder, strict=True)):
        bands = [(STORED[0] - (position + shift) / 97) / 3 for shift in (0, 2)]
        assert float(before["mean"]) == pytest.approx(100 * bands[0])
        assert float(after["mean"]) == pytest.approx(100 * (bands[1] - bands[0]))


def test_a_request_that_cannot_be_opened_does_not_block_the_others(tmp_path):
    opened = opened_table(tmp_path)
    table, reporter = tmp_path / "mine.py", RecordingReporter()
    table.write_text((ROOT / "experiments/example.py").read_text("utf-8"))
    for name in ("deleted", "invalid"):
        opened.storage.write_request(Request(name=name, table=str(table), preset="smoke"))
    table.unlink()
    (opened.storage.folder / "tables/invalid.json").write_text("{")
    assert [one.request for one in open_requests(tmp_path, reporter)] == [opened.request]
    deleted, invalid = reporter.warnings
    assert deleted.startswith("smoke/deleted is skipped: there is no file")
    assert invalid.startswith("smoke/invalid is skipped: ")


def test_a_table_file_that_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("TABLE = Table()")
    with pytest.raises(DeepLabError, match=r"mine\.py cannot be imported: NameError.*correct"):
        open_request(Request("mine", str(tmp_path / "mine.py"), "smoke"), tmp_path)


def test_a_table_file_is_stored_with_its_absolute_path(tmp_path, monkeypatch):
    stored = []
    monkeypatch.setattr("experiments.batch.run_here", lambda opened, *_: stored.append(opened))
    monkeypatch.chdir(ROOT)
    words = ["experiments.run", "experiments/example.py", f"--workdir={tmp_path}"]
    assert main(words, "usage", define_flags, run) == 0
    assert stored[0].request.table == str(ROOT / "experiments/example.py")
    assert stored[0].request.name == "experiments-example"


def test_a_tilde_in_a_workdir_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    opened = opened_table("~/runs")
    assert opened.storage.folder == tmp_path / "runs" / "smoke"
    assert [one.request for one in open_requests("~/runs", Reporter())] == [opened.request]
    with pytest.raises(DeepLabError, match=r"gs://runs is in a bucket.*give a directory"):
        opened_table("gs://runs")


@pytest.mark.slow
def test_a_run_of_some_rows_with_fewer_seeds_keeps_the_seeds_of_the_report(tmp_path):
    opened = opened_table(tmp_path, seeds=3)
    fabricate(opened, STORED)
    again = open_request(dataclasses.replace(opened.request, seeds=1), tmp_path)
    run_here(again, again.cases[:1], Reporter())
    assert [line["seeds"] for line in read_csv(opened)] == ["3"] * 5
    (stored,) = open_requests(tmp_path, Reporter())
    assert stored.request.seeds == 3
    # Other values of a grid are other cases.
    changed = dataclasses.replace(again.request, grid=("inference.flip=true",))
    run_here(open_request(changed, tmp_path), (), Reporter())
    (stored,) = open_requests(tmp_path, Reporter())
    assert stored.request.seeds == 1


def test_rows_that_a_preset_cannot_show_give_the_reason(tmp_path):
    opened = opened_table(tmp_path, "v3/table8")
    write_reports(opened, Reporter())
    notes = [line["note"] for line in read_csv(opened)]
    assert notes[1].startswith("frozen batch normalization requires initial weights")
    assert notes[0] == notes[2] == notes[3] == ""


def test_rows_that_start_from_another_run_give_the_reason(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from experiments.table import Row, Table, Training\n"
        "BEFORE = Training('deeplab_v3'), Training('deeplab_v3:dataset=coco_voc')\n"
        "ROWS = tuple(Row(one.recipe, after=one, recipe='deeplab_v3:stage=2') for one in BEFORE)\n"
        "TABLE = Table('stages', 'own', '', 'deeplab_v3', ROWS)\n"
    )
    own, coco = (case.why_not for case in opened_table(tmp_path, str(file)).cases)
    assert own.endswith("rows that start from another run; use --preset=paper")
    assert "trained on COCO" in coco


def test_rows_that_share_a_run_are_marked(tmp_path):
    opened = opened_table(tmp_path, "v3/table2")
    write_reports(opened, Reporter())
    notes = [line["note"] for line in read_csv(opened)]
    assert notes[:4] == [""] * 4
    assert notes[4] == "same run as: ResNet-50, block4"


def test_rows_with_equal_networks_and_different_fields_are_one_training_run(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from experiments.table import Row, Table\n"
        "ROWS = Row('default'), Row('48', changes={'model.low_level_channels': 48})\n"
        "TABLE = Table('channels', 'own', '', 'shapes', ROWS)\n"
    )
    opened = opened_table(tmp_path, str(file), "paper")
    first, second = (case.training for case in opened.cases)
    assert first != second
    assert first.key == second.key
    (job,) = make_jobs(opened.cases, 1)
    assert job.training == first
    summary = {"seconds": 61.0, "devices": ["cpu:0"], "device_kind": "cpu", "commit": "abc"}
    path = opened.storage.training(first, 0).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(summary))
    from experiments.texts import _totals

    assert "1 training run; time of the training steps: 1:01 in total" in _totals(opened, ())


def test_labels_cannot_break_a_table(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from experiments.table import Row, Table\n"
        "TABLE = Table('a | b', 'own', '', 'shapes:cpu', (Row('x | y, \"z\"'), Row('2')))\n"
    )
    opened = opened_table(tmp_path, str(file), "paper")
    fabricate(opened, [0])
    from experiments.measurements import measure
    from experiments.texts import _table, csv_text

    found = measure(opened.table, opened.cases, opened.storage, 1, None)
    assert '| x \\| y, "z" |' in _table(found, small=False)
    assert next(csv.DictReader(io.StringIO(csv_text(opened, found))))["row"] == 'x | y, "z"'


def test_time_left_is_that_of_the_steps_left(tmp_path):
    opened = opened_table(tmp_path)
    first, second, *_ = make_jobs(opened.cases, 1)
    fabricate(opened, [0], rows=1)
    for job, step, speed in ((first, 12, 8.0), (second, 4, 2.0)):
        workdir = opened.storage.training(job.training, 0)
        workdir.mkdir(parents=True)
        line = {"step": step, "images_per_second": speed, "loss": 1.0}
        (workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    opened.storage.write_training(first.training, 0)
    head, *lines, left = status.status_lines(opened)
    assert head == "smoke/v3-table5: 1 of 5 training runs finished"
    assert lines[0].endswith("seed 0: step 4 of 12")
    assert len(lines) == 4
    # 8 steps of 4 images at 2 a second, then three trainings at the mean of ½ and 2 s a step.
    assert left == "  time left for training steps: 1:01"


def test_seconds_are_summed_over_what_was_logged(tmp_path):
    opened = opened_table(tmp_path)
    rows = [(2, 4.0), (4, 8.0), (12, 8.0)]
    text = "".join(f'{{"step": {step}, "images_per_second": {rate}}}\n' for step, rate in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    summary = training_summary(opened.cases[0].training, tmp_path)
    assert (summary["steps"], summary["images_per_second"]) == (12, 8.0)
    assert summary["seconds"] == 2 + 1 + 4


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("2", [1]),
        ("1,4-5", [0, 3, 4]),
        ("image pooling", [4]),
        ("rates 6, 12, 18, 24;1", [0, 3]),
        ("multi-grid (1, 2, 4), rates 6, 12, 18, image pooling", [4]),
    ],
)
def test_rows_are_chosen_by_number_or_label(tmp_path, text, chosen):
    cases = opened_table(tmp_path).cases
    assert select_rows(cases, text) == tuple(cases[index] for index in chosen)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("2", [2, 3]), ("2-3", [2, 3, 4, 5]), ("output_stride=16", [1, 3, 5, 7, 9])],
)
def test_a_number_names_all_that_a_grid_makes_of_a_row(tmp_path, text, chosen):
    cases = opened_table(tmp_path, grid=("model.output_stride=8,16",)).cases
    assert select_rows(cases, text, points=2) == tuple(cases[index] for index in chosen)


@pytest.mark.parametrize("text", ["0", "6", "3-9", "pooling of images"])
def test_rows_that_are_not_there(tmp_path, text):
    with pytest.raises(DeepLabError, match=r"rows 1 to 5|no label contains"):
        select_rows(opened_table(tmp_path).cases, text)


def test_a_report_states_a_command_that_a_shell_accepts(tmp_path):
    grid = ("model.atrous_rates=(1,2,3),(2,4,6)",)
    opened = opened_table(tmp_path, grid=grid)
    line = re.search(r"`(python -m experiments.run .*)`", markdown(opened, (), Counter()))[1]
    assert shlex.split(line)[-1] == f"--grid={grid[0]}"
    assert f"'--grid={grid[0]}'" in line


def test_a_name_with_a_slash_is_refused(tmp_path, capsys):
    words = ["experiments.run", "v3/table5", "--name=v3/mine", f"--workdir={tmp_path}"]
    assert main(words, "usage", define_flags, run) == 2
    assert "--name=v3/mine must be a file name" in " ".join(capsys.readouterr().err.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--processes=2"], "--processes requires --submit=local"),
        (["--processes=2", "--submit=slurm"], "--processes requires --submit=local"),
        (["--slurm=slurm_partition=gpu"], "--slurm=slurm_partition=gpu requires --submit=slurm"),
    ],
)
def test_flags_without_effect_on_the_submission_are_refused(tmp_path, capsys, flags, complaint):
    words = ["experiments.run", "v3/table5", f"--workdir={tmp_path}", *flags]
    assert main(words, "usage", define_flags, run) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not any(tmp_path.iterdir())


def test_tables_are_listed_with_their_titles(capsys):
    assert main(["experiments.run"], "usage", define_flags, run) == 0
    lines, names = capsys.readouterr().out.splitlines(), list_tables()
    first = [line.split()[0] for line in lines if line.strip()]
    assert [word for word in first if word in names] == names


def test_status_refuses_the_name_of_a_table(tmp_path, capsys):
    words = ["experiments.status", "v3-table5", f"--workdir={tmp_path}"]
    assert main(words, "usage", status.define_flags, status.run) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "takes only flags, not 'v3-table5'; see python -m experiments.status --help" in message


def test_a_grid_crosses_the_rows(tmp_path):
    grid = ("model.output_stride=8,16", "model.atrous_rates=(1,2,3),(2,4,6)", "inference.flip=true")
    opened = opened_table(tmp_path, "experiments/example.py", "paper", grid=grid)
    assert len(opened.cases) == 3 * 4
    case = opened.cases[1]
    assert case.row.label == "decoder, output_stride=8, atrous_rates=(2,4,6), flip=True"
    assert case.training.config.model.atrous_rates == (2, 4, 6)
    assert case.training.config.model.output_stride == 8
    assert all(case.options.flip for case in opened.cases)
    # The second row differs from the first in its flip alone, which all have now.
    assert len(make_jobs(opened.cases, 1)) == 8
    assert describe(make_jobs(opened.cases, 1)[0]).startswith("decoder, output_stride=8")


def test_grids_with_one_or_no_axis():
    assert parse_grid(()).points() == [{}]
    (axis,) = parse_grid(["inference.scales=1,(0.5,1)"]).axes
    assert axis == ("inference.scales", ((1,), (0.5, 1)))
    assert shown({"model.output_stride": "8"}) == "output_stride=8"
    (axis,) = parse_grid(["data.train_split=train[:12%],train"]).axes
    assert axis[1] == ("train[:12%]", "train")


@pytest.mark.parametrize("text", ["model.output_stride", "=8", "a=", "a=1,,2"])
def test_malformed_grids_are_refused(text):
    with pytest.raises(DeepLabError, match="must be FIELD=VALUE"):
        parse_grid([text])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed=0,1", "--grid seed has no effect, because --seeds determines this field"),
        ("data.data_dir=a", "--grid data.data_dir has no effect, because --data_dir determines"),
        ("training.remat=none,norm", "--grid training.remat cannot have 2 values"),
    ],
)
def test_grids_whose_values_would_share_one_training_run_are_refused(text, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        parse_grid([text])
    assert parse_grid(["training.remat=norm"]).points() == [{"training.remat": "norm"}]


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        ("model.output_strid=8", "did you mean 'model.output_stride'"),
        ("model.output_stride=eight", "must be of type int"),
        ("inference.flips=true", "unknown inference field.*'flip'"),
        ("inference.scales=9", "scale 9"),
        ("model.atrous_rates=(3,3)", "different whole numbers"),
    ],
)
def test_grids_over_what_does_not_exist(tmp_path, grid, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        opened_table(tmp_path, grid=(grid,))


def test_tables_and_presets_that_are_not_there(tmp_path):
    for fields, complaint in (
        ({"table": "v3/table55"}, "did you mean 'v3/table5'"),
        ({"table": str(tmp_path / "mine.py")}, "no file"),
        ({"preset": "smok"}, "did you mean 'smoke'"),
        ({"preset": "paper", "init": "x"}, "--init cannot be used with the preset paper"),
    ):
        with pytest.raises(DeepLabError, match=complaint):
            opened_table(tmp_path, **fields)


def test_names_of_reports_differ_by_grid():
    plain = request_name("v3/table5", (), "")
    assert plain == "v3-table5"
    grids = [request_name("v3/table5", grid, "") for grid in (["a=1"], ["a=2"])]
    assert len({plain, *grids}) == 3


def test_a_workdir_without_runs_is_explained(tmp_path, capsys):
    arguments = ["experiments.report", f"--workdir={tmp_path}"]
    assert main(arguments, "", report.define_flags, report.run) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "nothing was run in" in printed
    assert "run a table with `python -m experiments.run`" in printed
