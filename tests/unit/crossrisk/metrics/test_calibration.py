"""Rules of level and spread: hand-worked values, coverage where bads are few, and what has no estimate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from crossrisk.metrics.calibration import calibration_intercept, calibration_slope, observed_expected
from crossrisk.metrics.rows import scored


def portfolio(bads: int, seed: int, *, centre: float = -3.0) -> np.ndarray:
    """Probabilities whose sum is about `bads`, spread like a scorecard's."""
    rng = np.random.default_rng(seed)
    p = expit(centre + 0.9 * rng.standard_normal(60 * bads))
    return p[: int(np.searchsorted(np.cumsum(p), bads))]


# --- observed over expected ---


def test_observed_over_expected_worked_by_hand() -> None:
    assert observed_expected(scored([1, 0, 1, 0], [0.5, 0.1, 0.3, 0.1])).value == pytest.approx(2.0)


@pytest.mark.parametrize(
    "truth",
    [lambda z: z, lambda z: z + 0.7, lambda z: z - 0.5, lambda z: 0.6 * z - 1.0],
    ids=["calibrated", "risk understated", "risk overstated", "overconfident"],
)
@pytest.mark.parametrize("bads", [105, 350, 2000])
def test_interval_of_observed_over_expected_covers_the_truth(bads: int, truth) -> None:
    rng = np.random.default_rng(bads)
    centre = -1.5 if bads == 2000 else -3.0  # fewer goods to draw, in a second
    population = expit(centre + 0.9 * rng.standard_normal(100_000))
    true_ratio = expit(truth(logit(population))).sum() / population.sum()
    below, above = 0, 0
    for _ in range(1000):
        p = rng.choice(population, int(bads / population.mean()))
        found = observed_expected(scored(rng.random(len(p)) < expit(truth(logit(p))), p))
        below, above = below + (true_ratio < found.low), above + (true_ratio > found.high)
    assert 30 <= below + above <= 70
    assert max(below, above) <= 45  # neither tail takes it all


@pytest.mark.parametrize("bads", [3, 10, 20])
def test_interval_of_observed_over_expected_holds_with_a_handful_of_bads(bads: int) -> None:
    p = portfolio(bads, seed=4)
    rng = np.random.default_rng(bads)
    intervals = [observed_expected(scored(rng.random(len(p)) < p, p)) for _ in range(1500)]
    assert np.mean([each.low <= 1 <= each.high for each in intervals]) >= 0.93


def test_month_without_bads_still_has_an_upper_bound() -> None:
    result = observed_expected(scored(np.zeros(400), np.full(400, 0.02)))
    assert (result.value, result.low, result.status) == (0.0, 0.0, "insufficient")
    assert result.high == pytest.approx(3.6889 / 8, rel=1e-4)  # exact Poisson upper end at 0


def test_month_with_only_bads_ends_at_what_can_be_observed() -> None:
    result = observed_expected(scored(np.ones(40), np.full(40, 0.5)))
    assert (result.value, result.high, result.status) == (2.0, 2.0, "insufficient")
    assert 1.7 < result.low < 2.0


@pytest.mark.parametrize(("label", "probability"), [([], []), ([1, 0], [0.0, 0.0])])
def test_nothing_expected_is_a_status(label, probability) -> None:
    assert observed_expected(scored(label, probability)).status == "undefined"


def test_probabilities_equal_to_the_labels_have_a_ratio_of_one() -> None:
    result = observed_expected(scored([1, 0, 1, 0], [1.0, 0.0, 1.0, 0.0]))
    assert (result.low, result.value, result.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-3)


@given(factor=st.floats(0.1, 0.9))
def test_scaling_the_probabilities_scales_ratio_and_interval(factor: float) -> None:
    p = portfolio(20, seed=1)
    label = np.random.default_rng(1).random(len(p)) < p
    whole, scaled = observed_expected(scored(label, p)), observed_expected(scored(label, p * factor))
    assert [scaled.low, scaled.value, scaled.high] == pytest.approx(
        [whole.low / factor, whole.value / factor, whole.high / factor]
    )


# --- intercept and slope ---


def test_probabilities_bent_by_a_known_line_give_the_line_back() -> None:
    rng = np.random.default_rng(5)
    z = -2.5 + rng.standard_normal(400_000)
    assert calibration_slope(scored(rng.random(len(z)) < expit(0.7 * z), expit(z))).value == pytest.approx(
        0.7, abs=0.02
    )
    assert calibration_intercept(scored(rng.random(len(z)) < expit(z + 0.4), expit(z))).value == pytest.approx(
        0.4, abs=0.03
    )


def test_slope_of_a_model_that_is_turned_round_is_negative() -> None:
    p = portfolio(200, seed=6)
    label = np.random.default_rng(6).random(len(p)) < p
    assert calibration_slope(scored(label, 1 - p)).high < 0


@pytest.mark.parametrize(("metric", "truth"), [(calibration_intercept, 0.0), (calibration_slope, 1.0)])
@pytest.mark.parametrize("bads", [105, 350])
def test_intervals_of_intercept_and_slope_cover_the_truth(metric, truth: float, bads: int) -> None:
    p = portfolio(bads, seed=7)
    rng = np.random.default_rng(bads)
    intervals = [metric(scored(rng.random(len(p)) < p, p)) for _ in range(1000)]
    assert 0.93 <= np.mean([each.low <= truth <= each.high for each in intervals]) <= 0.97


@pytest.mark.parametrize(
    ("label", "probability"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3]),
        ([1, 1, 1], [0.1, 0.2, 0.3]),
        ([1, 0, 1], [0.2, 0.2, 0.2]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.4]),
        ([], []),
    ],
    ids=["no bads", "no goods", "constant", "separated", "separated, turned round", "touching", "no rows"],
)
def test_slope_without_an_estimate_is_undefined(label, probability) -> None:
    result = calibration_slope(scored(label, probability))
    assert (result.value, result.low, result.status) == (None, None, "undefined")


def test_intercept_needs_both_classes_and_nothing_else() -> None:
    assert calibration_intercept(scored(np.zeros(50), np.full(50, 0.1))).status == "undefined"
    constant = calibration_intercept(scored(np.r_[np.ones(40), np.zeros(160)], np.full(200, 0.1)))
    assert constant.value == pytest.approx(logit(0.2) - logit(0.1))
    assert constant.status == "ok"


def test_certain_probabilities_are_held_where_log_odds_are_finite() -> None:
    label = np.tile([1, 0, 0, 0, 1], 50)
    p = np.tile([1.0, 0.0, 0.3, 1.0, 0.0], 50)
    assert calibration_slope(scored(label, p)).status == "ok"
    assert calibration_intercept(scored(label, p)).status == "ok"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1e-9, 0.01, 0.2, 0.5, 0.999, 1.0])), max_size=40))
def test_no_sample_raises_and_every_value_lies_in_its_interval(sample) -> None:
    rows = scored([label for label, _ in sample], [p for _, p in sample])
    for metric in (observed_expected, calibration_intercept, calibration_slope):
        result = metric(rows)
        assert (result.value is None) == (result.status == "undefined")
        if result.value is not None:
            assert result.low <= result.value <= result.high
            assert np.isfinite([result.low, result.high]).all()
