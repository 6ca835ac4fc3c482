"""Points of a scorecard: two anchor values fix the line, direction and limits follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.scoring import PROBABILITY_LIMIT, Scaling

SCALING = Scaling(score_at_odds=600.0, odds=30.0, points_to_double=20.0)


def test_probability_at_the_anchor_odds_scores_the_anchor_points() -> None:
    assert SCALING.score(np.array([1 / 31])) == pytest.approx([600.0], abs=1e-9)


@given(good_per_bad=st.floats(1e-4, 1e4))
def test_doubling_the_odds_adds_the_points_to_double(good_per_bad: float) -> None:
    single, double = SCALING.score(1.0 / (1.0 + np.array([good_per_bad, 2.0 * good_per_bad])))
    assert double - single == pytest.approx(20.0, abs=1e-6)


@given(points=st.floats(250.0, 950.0))
def test_odds_read_back_from_the_points_give_the_points(points: float) -> None:
    odds = 30.0 * 2.0 ** ((points - 600.0) / 20.0)
    assert SCALING.score(np.array([1.0 / (1.0 + odds)])) == pytest.approx([points], abs=1e-5)


def test_higher_probability_scores_lower() -> None:
    assert (np.diff(SCALING.score(np.linspace(0.01, 0.99, 50))) < 0).all()


def test_certainty_scores_as_the_limit_and_stays_finite() -> None:
    at_ends = SCALING.score(np.array([0.0, 1.0]))
    assert at_ends.tolist() == SCALING.score(np.array([PROBABILITY_LIMIT, 1.0 - PROBABILITY_LIMIT])).tolist()
    assert np.isfinite(at_ends).all()


def test_missing_probability_gives_a_missing_score() -> None:
    assert np.isnan(SCALING.score(np.array([np.nan]))).all()


@pytest.mark.parametrize(
    ("score_at_odds", "odds", "points_to_double"),
    [(600.0, 0.0, 20.0), (600.0, -1.0, 20.0), (600.0, 30.0, 0.0), (float("nan"), 30.0, 20.0), (600.0, 30.0, np.inf)],
)
def test_scale_without_meaning_is_refused(score_at_odds: float, odds: float, points_to_double: float) -> None:
    with pytest.raises(ValueError, match="odds and points_to_double above 0"):
        Scaling(score_at_odds, odds, points_to_double)
