import re

import numpy as np
import pytest
import scipy.stats

from deeplab_jax.errors import DeepLabError
from experiments.catalog import check_table, find_table
from experiments.claims import OPPOSITE, SHOWN, UNDECIDED, claim_tables, decide, report
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
    text = report([])
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
