"""Rules of calibration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from models.calibration import SLOPE_BOUNDS, fit_calibration, prior_shift, prior_shift_of
from models.fitted import sigmoid


def drawn(rows=20_000, intercept=-2.0, slope=1.0, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=rows)
    return raw, (rng.random(rows) < sigmoid(intercept + slope * raw)).astype(np.int8)


def test_the_prior_shift_is_the_difference_of_log_odds():
    assert prior_shift(0.2, 0.1) == pytest.approx(np.log(0.25) - np.log(1 / 9))
    assert prior_shift(0.3, 0.3) == 0


@pytest.mark.parametrize(
    ("name", "target_weight", "seen"),
    [
        ("source_logistic", 0.0, 0.1),
        ("source_network", 0.0, 0.1),
        ("dan", 0.0, 0.1),
        ("dann", 1.0, 0.15),
        ("dann", 0.25, 0.12),
        ("stacked", 0.0, 0.2),
        ("fine_tuned", 0.0, 0.2),
        ("pooled_boosted", 0.0, 0.2),
        ("target_logistic", 0.0, 0.2),
    ],
)
def test_a_contender_is_shifted_from_the_bad_rate_that_its_loss_saw(name, target_weight, seen):
    found = prior_shift_of(name, source_rate=0.1, target_rate=0.2, target_weight=target_weight)
    assert found == pytest.approx(prior_shift(0.2, seen))


def test_intercept_and_slope_are_those_of_an_unpenalised_logistic_regression():
    raw, y = drawn()
    found = fit_calibration(raw, y, shift=0.7)
    model = LogisticRegression(C=np.inf).fit((raw + 0.7)[:, None], y)
    assert found.slope == pytest.approx(model.coef_[0, 0], abs=1e-3)
    assert found.intercept == pytest.approx(model.intercept_[0] + 0.7 * model.coef_[0, 0], abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, -1), st.floats(0.3, 2))
def test_after_calibration_observed_equals_expected(seed, intercept, slope):
    raw, y = drawn(5000, intercept, slope, seed)
    found = fit_calibration(raw, y, shift=0.0)
    expected = sigmoid(found.intercept + found.slope * raw).sum()
    assert y.sum() / expected == pytest.approx(1.0, abs=0.01)


def test_few_bads_leave_the_slope_and_very_few_leave_everything_but_the_prior():
    raw, y = drawn(100_000)
    bads, goods = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    some = np.concatenate([bads[:40], goods[:400]])
    found = fit_calibration(raw[some], y[some], shift=0.5)
    assert found.slope == 1.0
    assert sigmoid(found.intercept + raw[some]).sum() == pytest.approx(40, rel=0.01)
    few = np.concatenate([bads[:5], goods[:400]])
    assert fit_calibration(raw[few], y[few], shift=0.5).intercept == 0.5


def test_a_reversed_ranking_does_not_turn_round():
    raw, y = drawn()
    assert fit_calibration(-raw, y, shift=0.0).slope == SLOPE_BOUNDS[0]
