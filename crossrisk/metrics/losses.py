"""Losses of probabilities of bad: Brier score, its skill, log loss. Checked rows in, `Metric` out; no files, no plots.

A loss mixes ranking with calibration; calibration by itself is `crossrisk.metrics.calibration`.
"""

from __future__ import annotations

import math

import numpy as np

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Floats, Metric, critical_z
from crossrisk.metrics.rows import Scored

LOSS_INTERVAL = "normal, per-row losses"
SKILL_INTERVAL = "normal, delta method"


def brier(rows: Scored, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS) -> Metric:
    """Mean squared error of the probabilities, (p - y)^2, in [0, 1]; read it through `brier_skill` at low bad rates.

    Source: Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950).
    """
    return _mean_loss(rows, _squared_errors(rows), confidence, minimum)


def log_loss(rows: Scored, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS) -> Metric:
    """Mean of -ln(probability given to what happened), in nats; probabilities held within [1e-6, 1 - 1e-6]."""
    p = rows.held
    return _mean_loss(rows, -np.log(np.where(rows.bad, p, 1 - p)), confidence, minimum)


def brier_skill(rows: Scored, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS) -> Metric:
    """Share of the Brier score of the constant bad rate r that the model removes: 1 - Brier / [r (1 - r)], at most 1.

    0 says no better than the bad rate itself, below 0 says worse. Undefined where one class is absent. The interval
    counts r as estimated too: the influence of a row is -l / v + Brier (1 - 2 r) (y - r) / v^2, v = r (1 - r).
    """
    n_bad, n_good = rows.n_bad, rows.n_good
    if min(n_bad, n_good) == 0:
        return rows.metric(None, None, None, minimum=minimum)
    losses = _squared_errors(rows)
    rate, mean = n_bad / len(losses), float(losses.mean())
    variance = rate * (1 - rate)
    influence = mean * (1 - 2 * rate) / variance**2 * (rows.bad - rate) - losses / variance
    skill = 1 - mean / variance
    half = _half_width(influence, confidence)
    return rows.metric(skill, (skill - half, min(1.0, skill + half)), SKILL_INTERVAL, minimum=minimum)


def _squared_errors(rows: Scored) -> Floats:
    return np.asarray((rows.probability - rows.bad) ** 2, np.float64)


def _mean_loss(rows: Scored, losses: Floats, confidence: float, minimum: int) -> Metric:
    if len(losses) == 0:
        return rows.metric(None, None, None, minimum=minimum)
    mean = float(losses.mean())
    if len(losses) == 1:
        return rows.metric(mean, None, None, minimum=minimum)
    half = _half_width(losses, confidence)
    return rows.metric(mean, (max(0.0, mean - half), mean + half), LOSS_INTERVAL, minimum=minimum)


def _half_width(values: Floats, confidence: float) -> float:
    """Of a normal interval for the mean of independent values."""
    return critical_z(confidence) * float(values.std(ddof=1)) / math.sqrt(len(values))
