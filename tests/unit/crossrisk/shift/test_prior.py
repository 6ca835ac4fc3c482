"""The target's bad rate from scores alone: EM against the likelihood that it climbs, and what is said without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from crossrisk.shift.label import NO_MIXTURE_P, em_prior, estimate_label_shift, estimate_prior, mixture_p

SOURCE, TARGET = 0.3, 0.1


def mixed(rows: int, prior: float, *, seed: int) -> tuple[Any, Any]:
    """Scores of label shift: goods ~ N(0, 1), bads ~ N(1, 1), whatever the prior."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < prior).astype(float)
    return rng.normal(size=rows) + y, y


def calibrated(raw: Any, prior: float = SOURCE) -> Any:
    """P(bad | score) under a bad rate: the log density ratio of the two normals is raw - 1/2."""
    return expit(raw - 0.5 + logit(prior))


def minus_log_likelihood(prior: float, probability: Any, prior_source: float) -> float:
    """Of target scores, up to a constant: the density of each is q f(. | bad) + (1 - q) f(. | good)."""
    density = prior * probability / prior_source + (1 - prior) * (1 - probability) / (1 - prior_source)
    return -float(np.sum(np.log(density)))


# --- EM ---


def test_em_of_two_rows_has_the_value_worked_by_hand() -> None:
    # density ratios bad to good 4 and 1/2 under a source prior of 1/2: d/dq log((3q + 1)(1 - q/2)) = 0 at q = 5/6
    assert em_prior(np.array([4 / 5, 1 / 3]), 0.5) == pytest.approx(5 / 6, abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.floats(0.02, 0.98))
def test_em_is_the_maximum_of_the_likelihood(seed: int, prior_source: float, prior: float) -> None:
    raw, _ = mixed(300, prior, seed=seed)
    probability = calibrated(raw, prior_source)
    found = em_prior(probability, prior_source)
    best = minimize_scalar(
        minus_log_likelihood,
        bounds=(0.0, 1.0),
        args=(probability, prior_source),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert minus_log_likelihood(found, probability, prior_source) <= best.fun + 1e-6
    assert found == pytest.approx(best.x, abs=1e-3)


def test_em_recovers_the_prior_within_its_standard_error() -> None:
    z = []
    for seed in range(200):
        raw, _ = mixed(1500, TARGET, seed=seed)
        p = calibrated(raw)
        found = em_prior(p, SOURCE)
        of_bads, of_goods = p / SOURCE, (1 - p) / (1 - SOURCE)
        score = (of_bads - of_goods) / (found * of_bads + (1 - found) * of_goods)
        z.append((found - TARGET) * np.sqrt(np.sum(score**2)))  # over 1 / sqrt(observed information)
    assert np.mean(z) == pytest.approx(0, abs=0.2)
    assert np.std(z) == pytest.approx(1, abs=0.15)


def test_em_without_label_shift_stays_at_the_sources_prior() -> None:
    raw, y = mixed(20_000, SOURCE, seed=1)
    assert em_prior(calibrated(raw), SOURCE) == pytest.approx(y.mean(), abs=0.02)


def test_em_ends_at_the_edge_where_the_target_has_one_class_alone() -> None:
    assert em_prior(np.full(50, 0.1), 0.5) == pytest.approx(0.0, abs=1e-8)
    assert em_prior(np.full(50, 0.9), 0.5) == pytest.approx(1.0, abs=1e-8)


def test_em_takes_probabilities_that_round_to_0_and_1() -> None:
    p = np.repeat([0.0, 1.0], [75, 25])
    assert em_prior(p, SOURCE) == pytest.approx(0.25)
    assert em_prior(np.zeros(10), SOURCE) == 0.0


# --- what training is told ---


@pytest.mark.parametrize("rule", ["bbse", "em"])
def test_both_rules_find_the_generated_prior(rule: Any) -> None:
    found = estimate_prior(rule, *mixed(20_000, SOURCE, seed=1), mixed(20_000, TARGET, seed=2)[0])
    assert (found.rule, found.reason) == (rule, None)
    assert found.value == pytest.approx(TARGET, abs=0.03)  # standard errors: .011 of bbse, .008 of em


@pytest.mark.parametrize("rule", ["bbse", "em"])
@pytest.mark.parametrize(("slope", "intercept"), [(0.2, 0.0), (3.0, -2.0)])
def test_scores_need_not_be_calibrated(rule: Any, slope: float, intercept: float) -> None:
    (raw_s, y_s), (raw_t, _) = mixed(2000, SOURCE, seed=3), mixed(2000, TARGET, seed=4)
    plain = estimate_prior(rule, raw_s, y_s, raw_t)
    moved = estimate_prior(rule, intercept + slope * raw_s, y_s, intercept + slope * raw_t)
    assert moved.value == pytest.approx(plain.value, abs=1e-6)


def test_bbse_here_is_the_bbse_of_the_diagnosis() -> None:
    (raw_s, y_s), (raw_t, _) = mixed(2000, SOURCE, seed=5), mixed(2000, TARGET, seed=6)
    diagnosed = estimate_label_shift(raw_s, y_s, raw_t, np.full(len(raw_t), np.nan))
    assert estimate_prior("bbse", raw_s, y_s, raw_t).value == diagnosed.prior_target


@pytest.mark.parametrize("rule", ["bbse", "em"])
def test_a_score_that_ranks_nothing_gives_none_and_says_why(rule: Any) -> None:
    rng = np.random.default_rng(0)
    found = estimate_prior(rule, rng.normal(size=500), mixed(500, SOURCE, seed=7)[1], rng.normal(size=500))
    assert (found.value, found.reason) == (None, "label shift cannot be estimated from these scores: ill-posed")


@pytest.mark.parametrize("rule", ["bbse", "em"])
def test_too_few_bads_give_none_and_say_why(rule: Any) -> None:
    raw, y = mixed(400, 0.02, seed=8)
    found = estimate_prior(rule, raw, y, mixed(500, TARGET, seed=9)[0])
    assert found.value is None
    assert found.reason is not None
    assert found.reason.endswith("insufficient")


def test_a_target_that_is_no_mix_of_the_sources_bads_and_goods_gives_none_and_says_why() -> None:
    found = estimate_prior("bbse", *mixed(2000, SOURCE, seed=10), np.full(500, -5.0))
    assert (found.value, found.reason) == (None, "the estimate is 0: no mix of the source's bads and goods")


def test_under_label_shift_the_mixture_is_refuted_in_few_of_many_samples() -> None:
    # the estimate is fitted to the same scores, and 1.96 standard errors of it are still a mixture that fits
    p = []
    for seed in range(200):
        (raw_s, y_s), (raw_t, _) = mixed(2000, SOURCE, seed=2 * seed), mixed(1500, TARGET, seed=2 * seed + 1)
        found = estimate_label_shift(raw_s, y_s, raw_t, np.full(len(raw_t), np.nan))
        p.append(mixture_p(raw_s, y_s, raw_t, found.prior_target or 0.0))
    assert np.mean(np.array(p) < 0.05) < 0.1
    assert np.mean(np.array(p) < NO_MIXTURE_P) < 0.02


def test_a_covariate_shift_that_widens_the_scores_gives_none() -> None:
    raw_t = 1.8 * mixed(1500, TARGET, seed=3)[0]
    found = estimate_prior("bbse", *mixed(2000, SOURCE, seed=4), raw_t)
    assert found.value is None
    assert "no mix of the source's bads' and goods'" in (found.reason or "")
