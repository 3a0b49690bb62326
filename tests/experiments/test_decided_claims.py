import csv
import json
import re

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from deeplab_jax.errors import DeepLabError
from experiments.batch import open_request
from experiments.catalog import check_table, find_table
from experiments.claims import (
    OPPOSITE,
    SHOWN,
    UNDECIDED,
    claim_tables,
    decide,
    define_flags,
    markdown,
    results,
    run,
)
from experiments.commands import main
from experiments.storage import Request
from experiments.table import Claim, Row, Table


@pytest.mark.parametrize(
    ("differences", "effect", "decision"),
    [
        ([5.0, 6.0, 5.5, 5.2, 5.9], 3.0, SHOWN),
        ([-5.0, -6.0, -5.5, -5.2, -5.9], 3.0, OPPOSITE),
        # Clear, but smaller than the effect that was fixed beforehand.
        ([1.0, 1.1, 0.9, 1.0, 1.0], 3.0, UNDECIDED),
        ([-1.0, -1.1, -0.9, -1.0, -1.0], 3.0, UNDECIDED),
        # Large, but the interval contains 0.
        ([20.0, -9.0, 15.0, -4.0, 12.0], 3.0, UNDECIDED),
        # Too few seeds.
        ([5.0, 6.0, 5.5, 5.2], 3.0, UNDECIDED),
        ([9.0], 3.0, UNDECIDED),
        ([], 3.0, UNDECIDED),
        ([3.0] * 5, 3.0, SHOWN),
        ([0.0] * 5, 3.0, UNDECIDED),
    ],
)
def test_the_rule_decides(differences, effect, decision):
    assert decide(differences, effect).decision == decision


def test_the_interval_is_that_of_students_t():
    differences = np.random.default_rng(0).normal(2, 1, 7).tolist()
    verdict = decide(differences, 1.0)
    low, high = scipy.stats.t.interval(0.95, 6, np.mean(differences), scipy.stats.sem(differences))
    assert (verdict.low, verdict.high) == pytest.approx((low, high))
    assert (verdict.mean, verdict.seeds) == (pytest.approx(np.mean(differences)), 7)


def test_at_least_sixteen_claims_of_the_papers_have_a_rule():
    claims = [claim for name in claim_tables() for claim in find_table(name).claims]
    papers = [claim for claim in claims if "other papers" not in claim.source]
    assert len(claims) >= 28
    assert len(papers) >= 16
    assert all(claim.effect > 0 for claim in claims)
    # Pages are not cited: they are not among the verified facts.
    assert all(re.match(r"v[123]\+?, (table|figure|section)", claim.source) for claim in claims)
    assert not [claim for claim in claims if "page" in claim.source]
    assert len({claim.text for claim in claims}) == len(claims)


def test_the_report_lists_claims_without_results():
    text = markdown(results([]))
    assert text.count("| not run |") == sum(len(find_table(n).claims) for n in claim_tables())
    assert "python -m experiments.run diagnostic/thin --seeds=5" in text


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (Claim("a", "v1", "first", "third", 1.0), "row of a claim"),
        (Claim("a", "v1", "first", "second", 0.0), "must be above 0"),
    ],
)
def test_inconsistent_claims_are_refused(claim, message):
    rows = (Row("first"), Row("second"))
    with pytest.raises(DeepLabError, match=message):
        check_table(Table("t", "own", "1", "shapes", rows, claims=(claim,)), "here")


def test_a_request_with_fewer_seeds_does_not_hide_one_with_more(tmp_path):
    values = [[0.30, 0.31, 0.29, 0.30, 0.32], [0.40, 0.41, 0.38, 0.41, 0.42]]
    store_results(tmp_path, values)
    requests = [
        open_request(Request(name, "diagnostic/thin", preset, seeds=seeds), tmp_path)
        for name, preset, seeds in (("thin", "paper", 5), ("z", "paper", 1), ("thin", "smoke", 9))
    ]
    assert max(len(one.better) for one in results(requests)) == 5


def store_results(workdir, values):
    """Stores mean IoU of the rows of diagnostic/thin for each seed, as training runs do."""
    request = Request(name="thin", table="diagnostic/thin", preset="paper", seeds=5)
    opened = open_request(request, workdir)
    opened.storage.write_request(request)
    summary = {"seconds": 30.0, "commit": "0123456789", "device_kind": "cpu", "devices": ["cpu:0"]}
    for case, by_seed in zip(opened.cases, values, strict=False):
        for seed, value in enumerate(by_seed):
            stored = {
                opened.storage.result(case.training, seed, case.strategy): {"mean_iou": value},
                opened.storage.training(case.training, seed).with_suffix(".json"): summary
                | {"started": "2026-11-30T04:00:00Z"},
            }
            for path, content in stored.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(content))


def claims_command(*arguments):
    return main(["experiments.claims", *arguments], "usage", define_flags, run)


def test_report_csv_and_plot_come_from_stored_results(tmp_path):
    # Rows: output strides 32, 16 and 8. The row with a decoder is not run.
    values = [[0.30, 0.31, 0.29, 0.30, 0.32], [0.40, 0.41, 0.38, 0.41, 0.42], [0.41, 0.42, 0.35]]
    store_results(tmp_path / "runs", values)
    output = tmp_path / "claims.md"
    assert claims_command(f"--workdir={tmp_path / 'runs'}", f"--output={output}") == 0
    with output.with_suffix(".csv").open(newline="") as file:
        lines = {line["claim"]: line for line in csv.DictReader(file)}
    assert len(lines) == len(results([]))
    shown = lines["output stride 16 beats 32"]
    differences = 100 * (np.array(values[1]) - np.array(values[0]))
    low, high = scipy.stats.t.interval(0.95, 4, differences.mean(), scipy.stats.sem(differences))
    found = [float(shown[name]) for name in ("difference", "low", "high")]
    assert found == pytest.approx([differences.mean(), low, high], abs=1e-4)
    assert (shown["verdict"], shown["seeds"], shown["minutes"]) == (SHOWN, "5", "5.0")
    assert shown["better_values"].split() == ["40.0000", "41.0000", "38.0000", "41.0000", "42.0000"]
    assert "diagnostic/thin --rows=1,2 --seeds=5" in shown["command"]
    assert [shown[name] for name in ("commit", "hardware", "date")] == [
        "01234567",
        "1 × cpu",
        "2026-11-30",
    ]
    # Three seeds do not decide, and rows without results are not compared.
    assert lines["output stride 8 beats 16"]["verdict"] == UNDECIDED
    assert lines["output stride 8 beats 16"]["seeds"] == "3"
    text = output.read_text()
    assert text.count("| shown |") == text.count(f"| {UNDECIDED} |") == 1
    assert "![differences](claims.png)" in text
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size[0] > 1000


def test_a_tilde_in_the_path_of_a_report_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert claims_command("--workdir=~/runs", "--output=~/claims.md") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"claims.md", "claims.csv", "claims.png"}


def test_a_report_that_is_no_markdown_file_is_refused(tmp_path, capsys):
    assert claims_command(f"--workdir={tmp_path}", f"--output={tmp_path / 'claims.csv'}") != 0
    assert "must be a Markdown file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
