"""Points of a scorecard: two anchor values fix the line; direction, limits, rounding and the way back follow."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.scoring import PROBABILITY_LIMIT, Scaling, read_scaling

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


@pytest.mark.parametrize("limit", [0.0, 0.5, -1e-9, float("nan")])
def test_limit_that_holds_nothing_or_everything_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="probability_limit"):
        Scaling(600.0, 30.0, 20.0, probability_limit=limit)


@given(probability=st.floats(1e-8, 1 - 1e-8))
def test_probability_comes_back_from_its_points(probability: float) -> None:
    p = np.array([probability])
    assert SCALING.probability(SCALING.score(p)) == pytest.approx(p, rel=1e-6, abs=1e-15)


def test_anchor_points_are_the_anchor_odds() -> None:
    assert SCALING.probability(np.array([600.0, 620.0])) == pytest.approx([1 / 31, 1 / 61])


def test_points_beyond_any_account_give_probabilities_within_the_limit() -> None:
    p = SCALING.probability(np.array([-1e6, 1e6, np.nan]))
    assert p[:2].tolist() == [1 - PROBABILITY_LIMIT, PROBABILITY_LIMIT]
    assert np.isnan(p[2])


@given(decimals=st.integers(0, 3), points=st.floats(250.0, 950.0))
def test_rounded_points_are_whole_in_their_last_decimal_and_nearest(decimals: int, points: float) -> None:
    rounded = Scaling(600.0, 30.0, 20.0, decimals=decimals)
    p = SCALING.probability(np.array([points]))
    assert abs(rounded.score(p) - SCALING.score(p))[0] <= 0.5 * 10.0**-decimals + 1e-9
    assert rounded.score(p)[0] == round(float(rounded.score(p)[0]), decimals)


def test_rounding_keeps_the_order_of_accounts() -> None:
    whole = Scaling(600.0, 30.0, 20.0, decimals=0).score(np.linspace(0.001, 0.999, 5000))
    assert (np.diff(whole) <= 0).all()


@given(
    score_at_odds=st.floats(-1e3, 1e3),
    odds=st.floats(1e-3, 1e3),
    points_to_double=st.floats(0.1, 100.0),
    decimals=st.none() | st.integers(0, 4),
    limit=st.sampled_from([1e-9, 1e-6, 0.001]),
)
def test_card_read_back_scores_every_account_the_same(score_at_odds, odds, points_to_double, decimals, limit) -> None:
    card = Scaling(score_at_odds, odds, points_to_double, decimals, limit)
    read = read_scaling(json.loads(json.dumps(card.to_json())))
    p = np.r_[0.0, np.linspace(0.0005, 0.9995, 200), 1.0]
    assert read == card
    assert read.score(p).tolist() == card.score(p).tolist()


def test_card_whose_rounding_was_lost_is_refused_not_guessed() -> None:
    document = Scaling(600.0, 30.0, 20.0, decimals=0).to_json()
    del document["decimals"]
    with pytest.raises(ValueError, match="expected the constants"):
        read_scaling(document)
