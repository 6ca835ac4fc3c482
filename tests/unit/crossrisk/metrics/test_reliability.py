"""Rules of the one call: every part is there whatever the month looks like, and it is plain data."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.metrics.grades import grade_by_edges, grade_by_name
from crossrisk.metrics.reliability import Assessment, assess

EDGES = (0.02, 0.1, 0.3)


def plain(assessment: Assessment) -> dict:
    """Through JSON, which refuses NaN and infinity."""
    return json.loads(json.dumps(assessment.to_json(), allow_nan=False))


def month(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 9, rows)
    return (rng.random(rows) < p).astype(int), p


def test_good_month_has_every_number_and_the_truth_inside_its_intervals() -> None:
    label, p = month(20_000, seed=1)
    found = assess(label, p, sample="out_of_time", seed=1, grading=grade_by_edges(p, EDGES))
    assert found.observed_expected.low < 1 < found.observed_expected.high
    assert found.intercept.low < 0 < found.intercept.high
    assert found.slope.low < 1 < found.slope.high
    assert found.calibration_error.error.value < found.calibration_error.null_95
    assert found.hosmer_lemeshow.p > 0.05
    assert [grade.bad_rate.status for grade in found.grades] == ["ok"] * 4
    assert sum(grade.n for grade in found.grades) == found.n_bad + found.n_good == 20_000
    assert plain(found)["observed_expected"]["interval"] == "gamma (Jeffreys), effective bads"


def test_probabilities_twice_too_high_are_seen_by_every_measure() -> None:
    label, p = month(20_000, seed=2)
    doubled = np.minimum(2 * p, 1.0)
    found = assess(label, doubled, sample="out_of_time", seed=1, grading=grade_by_edges(doubled, EDGES))
    assert found.observed_expected.high < 0.6
    assert found.intercept.high < -0.5
    assert found.calibration_error.error.value > found.calibration_error.null_95
    assert found.hosmer_lemeshow.p < 1e-6
    assert found.brier.value > assess(label, p, sample="out_of_time", seed=1).brier.value


def test_month_without_bads_renders() -> None:
    p = np.full(300, 0.02)
    found = assess(np.zeros(300), p, sample="out_of_time", seed=1, grading=grade_by_edges(p, EDGES))
    assert (found.bad_rate, found.observed_expected.value, found.observed_expected.status) == (0.0, 0.0, "insufficient")
    assert found.intercept.status == found.slope.status == found.brier_skill.status == "undefined"
    assert plain(found)["grades"][1]["bad_rate"]["status"] == "undefined"


def test_month_without_labels_renders() -> None:
    p = np.linspace(0.01, 0.5, 200)
    found = assess([None] * 200, p, sample="out_of_time", seed=1, grading=grade_by_edges(p, EDGES), unknown="exclude")
    assert (found.n_bad, found.n_good, found.excluded, found.bad_rate) == (0, 0, 200, None)
    parts = plain(found)
    names = ("brier", "brier_skill", "log_loss", "observed_expected", "intercept", "slope", "hosmer_lemeshow")
    assert {parts[name]["status"] for name in names} == {"undefined"}
    assert [grade["n"] for grade in parts["grades"]] == [0, 0, 0, 0]


def test_null_scores_are_refused_unless_excluded_and_the_grades_follow() -> None:
    label, p = month(500, seed=3)
    names = np.where(p > 0.1, "B", "A").tolist()
    with_nulls = pl.Series(p).set(pl.Series(np.arange(500) < 20), None)
    with pytest.raises(ValueError, match="20 no finite probability"):
        assess(label, with_nulls, sample="out_of_time", seed=1)
    found = assess(
        label, with_nulls, sample="out_of_time", seed=1, grading=grade_by_name(names, "AB"), unknown="exclude"
    )
    without = assess(label[20:], p[20:], sample="out_of_time", seed=1, grading=grade_by_name(names[20:], "AB"))
    assert found.excluded == 20
    assert {**plain(found), "excluded": 0} == plain(without)


def test_grades_for_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="a grade for each of 2 rows, got 3"):
        assess(
            [1, None], [0.1, 0.2], sample="fitting", seed=1, grading=grade_by_edges([0.1] * 3, ()), unknown="exclude"
        )


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1e-12, 0.02, 0.2, 0.5, 1.0])), max_size=30),
    st.sampled_from(["fitting", "out_of_time"]),
)
def test_no_month_is_too_ugly(sample, where) -> None:
    label, p = [label for label, _ in sample], [p for _, p in sample]
    found = assess(label, p, sample=where, seed=1, grading=grade_by_edges(p, EDGES))
    assert sum(grade.n for grade in found.grades) == len(sample)
    plain(found)


def test_order_of_rows_decides_nothing() -> None:
    label, p = month(2000, seed=4)
    p = np.round(p, 2)
    order = np.random.default_rng(1).permutation(2000)
    one = assess(label, p, sample="out_of_time", seed=1)
    other = assess(label[order], p[order], sample="out_of_time", seed=1)
    assert one.calibration_error.error.value == pytest.approx(other.calibration_error.error.value, abs=1e-12)
    assert one.hosmer_lemeshow.statistic == pytest.approx(other.hosmer_lemeshow.statistic)
    assert one.slope.value == pytest.approx(other.slope.value)
