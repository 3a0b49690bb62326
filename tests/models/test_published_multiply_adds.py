"""Multiply-adds of the papers, the model zoo and torchvision (experiments/multiply_adds.csv)."""

import pytest
from selection import slow_unless

from experiments.multiply_adds import compare, read_published

ROWS = read_published()
CHECKED = [row for row in ROWS if row["checked"] == "yes"]


def name(row):
    scales = f"{len(row['scales'].split())} scales" + (" flipped" * (row["flip"] == "yes"))
    words = (row["source"], row["table"], row["architecture"], row["keywords"], scales)
    return " ".join(words)


# A network of each source and kind; the slow tests count them all.
FIRST = list({(row["source"], row["architecture"]): row for row in reversed(CHECKED)}.values())


@pytest.mark.parametrize("row", slow_unless(lambda row: row in FIRST, CHECKED), ids=name)
def test_ours_agree_with_the_published_ones(row):
    found = compare(row)
    assert found.ours is not None, "there is no such network"
    assert found.agrees, f"published {found.published}, ours {found.ours:.3f} billion"


def test_unchecked_rows_give_the_reason():
    unchecked = [row for row in ROWS if row["checked"] != "yes"]
    assert all(row["checked"] == "no" and row["note"] for row in unchecked)


@pytest.mark.parametrize(
    ("published", "tolerance", "agrees"),
    [
        ("2.741", "exact", True),
        ("2.742", "exact", False),
        ("2.75", "0.35%|0.025", True),
        ("2.75", "0.3%", False),
        ("2.77", "0.35%|0.025", False),
    ],
)
def test_tolerances(published, tolerance, agrees):
    row = {"architecture": "deeplab_v3", "keywords": "backbone=mobilenet_v2", "crop": "513x513"}
    row |= {"scales": "1", "flip": "no", "convention": "plain"}
    found = compare(row | {"published_billions": published, "tolerance": tolerance})
    assert found.agrees == agrees


def test_networks_that_do_not_exist_are_marked():
    row = next(row for row in ROWS if row["architecture"] == "edgetpu_deeplab")
    found = compare(row)
    assert (found.ours, found.difference, found.agrees) == (None, None, False)
