"""Rules of what metrics read: labels, scores, directions; and of the shared quotients."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from crossrisk.metrics.base import critical_z, divide, known_rows, read_labels, read_scores, status_of, wilson


@pytest.mark.parametrize("label", [[0, 1, 1], [0.0, 1.0, 1.0], [False, True, True], (0, 1, 1), pl.Series([0, 1, 1])])
def test_labels_may_be_a_list_an_array_or_booleans(label):
    np.testing.assert_array_equal(read_labels(label), [False, True, True])


@pytest.mark.parametrize("label", [[0, 1, None, 2], [0, 1, np.nan, -1]])
def test_labels_other_than_0_and_1_are_counted_in_the_error(label):
    with pytest.raises(ValueError, match=r"must be 0 or 1; 2 of 4 are not: leave unknown labels out with known_rows"):
        read_labels(label)


def test_missing_and_infinite_scores_are_counted_in_the_error():
    with pytest.raises(ValueError, match=r"scores must be finite; 3 of 5 are missing or infinite"):
        read_scores([0.1, None, np.nan, np.inf, 0.2], 5)


def test_labels_and_scores_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one label a row"):
        read_labels([[0, 1]])
    with pytest.raises(ValueError, match=r"one score a label, \(3,\), got an array of shape \(2,\)"):
        read_scores([0.1, 0.2], 3)


def test_a_direction_is_declared_or_refused():
    np.testing.assert_array_equal(read_scores([600, 700], 2, "safer"), [-600, -700])
    with pytest.raises(ValueError, match=r"'riskier' or 'safer', got 'up'"):
        read_scores([600, 700], 2, "up")


def test_known_rows_leaves_out_and_counts_what_cannot_judge():
    known = known_rows([0, 1, None, None, 1], [0.1, np.nan, 0.3, np.nan, 0.5])
    np.testing.assert_array_equal(known.label, [0, 1])
    np.testing.assert_array_equal(known.score, [0.1, 0.5])
    assert (known.unknown_labels, known.missing_scores) == (2, 1)
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        known_rows([0], [0.1, 0.2])


@pytest.mark.parametrize(("successes", "rows"), [(0, 7), (3, 7), (7, 7), (105, 1470)])
def test_wilson_agrees_with_scipy(successes, rows):
    expected = binomtest(successes, rows).proportion_ci(0.9, method="wilson")
    assert wilson(successes, rows, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_no_rows_is_nan():
    assert np.isnan(wilson(0, 0, 0.95)).all()
    np.testing.assert_array_equal(divide([1.0, 1.0], [0.0, 2.0]), [np.nan, 0.5])


def test_status_follows_the_smaller_class():
    assert [status_of(0, 99), status_of(29, 99), status_of(99, 29), status_of(30, 30)] == [
        "undefined",
        "insufficient",
        "insufficient",
        "ok",
    ]


def test_a_confidence_is_a_share():
    assert critical_z(0.95) == pytest.approx(1.959964, abs=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        critical_z(95)


@given(bads=st.integers(0, 50), goods=st.integers(0, 5000))
def test_wilson_interval_holds_the_share_within_zero_and_one(bads, goods):
    low, high = wilson([bads], [bads + goods], 0.95)
    if bads + goods:
        assert 0 <= low[0] <= bads / (bads + goods) <= high[0] <= 1
    else:
        assert np.isnan([low[0], high[0]]).all()
