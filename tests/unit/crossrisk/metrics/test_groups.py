"""Rules of calibration over groups: ties stay together, nulls are right, degrees of freedom are declared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import chdtrc, expit

from crossrisk.metrics.groups import equal_count_groups, expected_calibration_error, hosmer_lemeshow
from crossrisk.metrics.rows import scored


def test_groups_have_equal_counts_where_probabilities_differ() -> None:
    place, count = equal_count_groups(np.random.default_rng(1).random(1000), 10)
    assert count == 10
    assert np.bincount(place).tolist() == [100] * 10


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 12))
def test_equal_probabilities_share_a_group_and_no_group_is_empty(values: list[int], groups: int) -> None:
    p = np.array(values) / 5
    place, count = equal_count_groups(p, groups)
    assert np.bincount(place, minlength=count).min() > 0
    assert count <= groups
    assert all(len(np.unique(place[p == value])) == 1 for value in np.unique(p))
    assert (np.diff(place[np.argsort(p, kind="stable")]) >= 0).all()


def test_at_least_one_group() -> None:
    with pytest.raises(ValueError, match="at least one group"):
        equal_count_groups(np.array([0.1]), 0)


def test_calibration_error_worked_by_hand() -> None:
    found = expected_calibration_error(scored([0, 1, 1, 1], [0.1, 0.1, 0.8, 0.8]), groups=2, seed=1)
    assert found.error.value == pytest.approx((0.4 + 0.2) / 2)
    assert (found.groups, found.error.status, found.error.interval) == (2, "insufficient", None)


@pytest.mark.parametrize("rows", [429, 1500])
def test_null_of_the_calibration_error_is_what_calibrated_samples_show(rows: int) -> None:
    rng = np.random.default_rng(rows)
    p = expit(-3.0 + 0.9 * rng.standard_normal(rows))
    errors = [
        expected_calibration_error(scored(rng.random(rows) < p, p), seed=1, replicates=1).error.value
        for _ in range(2000)
    ]
    found = expected_calibration_error(scored(rng.random(rows) < p, p), seed=2, replicates=4000)
    assert found.null_mean == pytest.approx(np.mean(errors), rel=0.03)
    assert found.null_95 == pytest.approx(np.quantile(errors, 0.95), rel=0.05)


def test_seed_decides_the_null_and_the_order_of_rows_does_not() -> None:
    p = np.random.default_rng(1).random(3000) / 5
    rows = scored(p > 0.15, p)
    shuffled = scored((p > 0.15)[::-1], p[::-1])
    first = expected_calibration_error(rows, seed=3)
    assert first.null_95 == pytest.approx(expected_calibration_error(shuffled, seed=3).null_95, rel=1e-12)
    assert first.null_95 != expected_calibration_error(rows, seed=4).null_95


def test_probabilities_of_one_have_a_null_of_zero() -> None:
    found = expected_calibration_error(scored(np.ones(2000), np.ones(2000)), seed=1)
    assert (found.error.value, found.null_mean, found.groups) == (0.0, 0.0, 1)


def test_no_rows_are_a_status() -> None:
    rows = scored([], [])
    assert expected_calibration_error(rows, seed=1).error.status == "undefined"
    assert hosmer_lemeshow(rows, sample="out_of_time").status == "undefined"


def test_hosmer_lemeshow_worked_by_hand() -> None:
    label = np.r_[np.arange(100) < 8, np.arange(100) < 30]
    p = np.r_[np.full(100, 0.1), np.full(100, 0.2)]
    found = hosmer_lemeshow(scored(label, p), sample="out_of_time", groups=2)
    assert found.statistic == pytest.approx(4 / 9 + 100 / 16)
    assert (found.degrees_of_freedom, found.status) == (2, "ok")
    assert found.p == pytest.approx(np.exp(-found.statistic / 2))  # chi-square with 2 degrees of freedom


def test_fitting_rows_lose_two_degrees_of_freedom() -> None:
    p = np.random.default_rng(1).random(1000)
    rows = scored(np.random.default_rng(2).random(1000) < p, p)
    assert hosmer_lemeshow(rows, sample="fitting").degrees_of_freedom == 8
    assert hosmer_lemeshow(rows, sample="out_of_time").degrees_of_freedom == 10


def test_too_few_groups_for_fitting_rows_are_a_status() -> None:
    found = hosmer_lemeshow(scored([0, 1, 1], [0.2, 0.2, 0.4]), sample="fitting")
    assert (found.statistic, found.p, found.status) == (None, None, "undefined")


def test_misspelt_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="'fitting' or 'out_of_time'"):
        hosmer_lemeshow(scored([0, 1], [0.2, 0.3]), sample="oot")


def test_degrees_of_freedom_of_the_sample_hold_the_level_and_two_fewer_do_not() -> None:
    rng = np.random.default_rng(9)
    p = expit(-2.8 + 0.9 * rng.standard_normal(5150))
    found = [hosmer_lemeshow(scored(rng.random(len(p)) < p, p), sample="out_of_time") for _ in range(2000)]
    assert 0.035 <= np.mean([each.p < 0.05 for each in found]) <= 0.065
    assert 0.09 <= np.mean([chdtrc(8, each.statistic) < 0.05 for each in found]) <= 0.14


def test_certain_probabilities_that_were_wrong_are_rejected_not_divided_by_zero() -> None:
    label = np.r_[np.ones(40), np.zeros(960)]
    found = hosmer_lemeshow(scored(label, np.zeros(1000)), sample="out_of_time")
    assert found.p < 1e-6
