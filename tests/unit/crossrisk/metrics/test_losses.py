"""Rules of the losses: hand-worked values, what the constant bad rate scores, one class, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from crossrisk.metrics.losses import brier, brier_skill, log_loss
from crossrisk.metrics.rows import scored


def test_values_worked_by_hand() -> None:
    rows = scored([1, 0, 0, 1], [0.8, 0.2, 0.4, 0.4])
    assert brier(rows).value == pytest.approx((0.04 + 0.04 + 0.16 + 0.36) / 4)
    assert brier_skill(rows).value == pytest.approx(1 - 0.15 / 0.25)
    assert log_loss(rows).value == pytest.approx(-(2 * math.log(0.8) + math.log(0.6) + math.log(0.4)) / 4)


def test_bad_rate_itself_has_no_skill() -> None:
    label = np.r_[np.ones(68), np.zeros(932)]
    rows = scored(label, np.full(1000, 0.068))
    assert brier(rows).value == pytest.approx(0.063376)  # r (1 - r) at 6.8%
    assert brier_skill(rows).value == pytest.approx(0.0, abs=1e-12)


def test_certainty_that_was_wrong_costs_a_finite_log_loss() -> None:
    assert log_loss(scored([1, 0], [0.0, 0.0])).value == pytest.approx(-math.log(1e-6) / 2, rel=1e-5)


def test_one_class_has_losses_but_no_skill() -> None:
    rows = scored(np.zeros(500), np.full(500, 0.1))
    assert (brier(rows).value, brier(rows).status) == (pytest.approx(0.01), "insufficient")
    assert (brier_skill(rows).value, brier_skill(rows).status) == (None, "undefined")


@pytest.mark.parametrize("metric", [brier, brier_skill, log_loss])
def test_no_rows_are_a_status(metric) -> None:
    result = metric(scored([], []))
    assert (result.value, result.low, result.status, result.interval) == (None, None, "undefined", None)


def test_one_row_has_a_loss_but_no_interval() -> None:
    result = brier(scored([1], [0.5]))
    assert (result.value, result.low, result.interval, result.status) == (0.25, None, None, "insufficient")


@pytest.mark.parametrize("metric", [brier, brier_skill, log_loss])
def test_interval_covers_the_true_loss_at_105_bads(metric) -> None:
    rng = np.random.default_rng(20)
    p = expit(-2.9 + rng.standard_normal(1_000_000))
    truth = metric(scored(rng.random(len(p)) < p, p)).value
    samples = rng.choice(p, (1000, 1500))
    intervals = [metric(scored(rng.random(1500) < sample, sample)) for sample in samples]
    assert 0.93 <= np.mean([each.low <= truth <= each.high for each in intervals]) <= 0.97
