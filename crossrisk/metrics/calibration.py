"""Whether probabilities of bad have the right level and spread: observed over expected, intercept and slope.

Checked rows in, `Metric` out; no files, no plots. Calibration within groups of rows is `crossrisk.metrics.groups` and
`crossrisk.metrics.grades`; making a model calibrated is `models.calibration`.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, gammaincinv, logit

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Floats, Metric, critical_z
from crossrisk.metrics.rows import Scored, tail

OE_INTERVAL = "gamma (Jeffreys), effective bads"
WALD_INTERVAL = "Wald, Fisher information"

_MOST_STEPS = 50
_NEGLIGIBLE = 1e-10
"""Newton takes its last step where that raises the mean log likelihood by less, or is halved below this share."""
_CONSTANT = 1e-9
"""Log odds within so narrow a range carry no slope."""


def observed_expected(rows: Scored, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS) -> Metric:
    """Bads over the bads that the probabilities expect, D / sum p, in [0, inf); above 1 says that risk is understated.

    What varies is the number of bads: its variance, rows drawn anew, is estimated by V = sum (y - p D / sum p)^2, which
    holds under any miscalibration, and D is read as a Poisson count of D^2 / V effective bads with Jeffreys' prior
    (gamma interval; Fay and Feuer, Statistics in Medicine 16 (1997), for rates whose variance is not their mean).
    At 105, 350 and 2,000 bads it covers 94.5-95.4%, in both tails alike, calibrated or not; with 3 bads, 95% or more.
    The plain Poisson interval covers 97-100% where risks are spread. Without bads the upper end is the exact Poisson
    one, -ln(tail) / sum p; with nothing but bads the lower end is the exact binomial one.
    Undefined without rows or where every probability is 0.
    """
    p, n_bad = rows.probability, rows.n_bad
    expected = float(p.sum())
    if expected == 0:
        return rows.metric(None, None, None, minimum=minimum)
    ratio = n_bad / expected
    interval = _ratio_interval(rows, expected, tail(confidence))
    return rows.metric(ratio, interval, OE_INTERVAL, minimum=minimum)


def _ratio_interval(rows: Scored, expected: float, alpha: float) -> tuple[float, float]:
    p, n_bad = rows.probability, rows.n_bad
    if n_bad == 0:
        return 0.0, -math.log(alpha) / expected
    ratio = n_bad / expected
    if rows.n_good == 0:
        return ratio * alpha ** (1 / n_bad), ratio
    # sum (y - ratio p)^2, multiplied out; above 0 but for probabilities that equal the labels
    variance = n_bad - 2 * ratio * float(p[rows.bad].sum()) + ratio**2 * float(p @ p)
    effective = n_bad**2 / max(variance, _NEGLIGIBLE * n_bad)
    low, high = gammaincinv(effective + 0.5, [alpha, 1 - alpha]) / effective * ratio
    return float(low), float(high)


def calibration_intercept(rows: Scored, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS) -> Metric:
    """a of logit P(bad) = a + logit p by maximum likelihood; ideal 0, above 0 says that risk is understated.

    Undefined where one class is absent: the estimate would be infinite. Probabilities held within [1e-6, 1 - 1e-6].

    Source: Cox, Two further applications of a model for binary regression, Biometrika 45 (1958).
    """
    if min(rows.n_bad, rows.n_good) == 0:
        return rows.metric(None, None, None, minimum=minimum)
    log_odds = logit(rows.held)
    start = [_log_odds_of_rate(rows) - log_odds.mean()]
    fit = _maximise(rows, np.ones((len(log_odds), 1)), log_odds, np.array(start))
    return _wald(rows, fit, confidence, minimum)


def calibration_slope(rows: Scored, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS) -> Metric:
    """b of logit P(bad) = a + b logit p by maximum likelihood; ideal 1, below 1 overconfident, below 0 turned round.

    Undefined where the estimate does not exist: one class, equal probabilities, or bads and goods that some cut
    separates (Albert and Anderson, Biometrika 71 (1984)). Probabilities held within [1e-6, 1 - 1e-6].

    Source: Cox, Two further applications of a model for binary regression, Biometrika 45 (1958).
    """
    log_odds = logit(rows.held)
    if not _overlaps(rows, log_odds):
        return rows.metric(None, None, None, minimum=minimum)
    centred = log_odds - log_odds.mean()  # intercept and slope become nearly uncorrelated, the slope stays
    design = np.column_stack([np.ones_like(centred), centred])
    fit = _maximise(rows, design, np.zeros_like(centred), np.array([_log_odds_of_rate(rows), 1.0]))
    return _wald(rows, fit, confidence, minimum)


def _log_odds_of_rate(rows: Scored) -> float:
    return math.log(rows.n_bad / rows.n_good)


def _overlaps(rows: Scored, x: Floats) -> bool:
    """Whether a finite slope maximises the likelihood: x varies, and no cut of it separates the classes."""
    if min(rows.n_bad, rows.n_good) == 0 or np.ptp(x) < _CONSTANT:
        return False
    bads, goods = x[rows.bad], x[~rows.bad]
    return bool(bads.min() < goods.max() and bads.max() > goods.min())


def _wald(rows: Scored, fit: tuple[float, float] | None, confidence: float, minimum: int) -> Metric:
    if fit is None:
        return rows.metric(None, None, None, minimum=minimum)
    estimate, standard_error = fit
    half = critical_z(confidence) * standard_error
    return rows.metric(estimate, (estimate - half, estimate + half), WALD_INTERVAL, minimum=minimum)


def _maximise(rows: Scored, design: Floats, offset: Floats, start: Floats) -> tuple[float, float] | None:
    """Last coefficient of logit P(bad) = offset + design @ coefficients, and its standard error.

    Newton's method on the log likelihood, steps halved until it does not fall. None where it does not converge, as
    close to separation: no number is better than an arbitrary one.

    Args:
        rows: (N,) labels.
        design: (N, k) columns.
        offset: (N,) log odds with coefficient 1.
        start: (k,) coefficients to begin with.
    """
    at = start
    likelihood, eta = _log_likelihood(rows, design, offset, at)
    for _ in range(_MOST_STEPS):
        mean = expit(eta)
        gradient = design.T @ (rows.bad - mean)
        information = design.T @ (design * (mean * (1 - mean))[:, None])
        if np.linalg.cond(information) > 1 / np.finfo(np.float64).eps:
            return None
        covariance = np.linalg.inv(information)
        step = covariance @ gradient
        if gradient @ step < _NEGLIGIBLE * len(eta):
            return float((at + step)[-1]), math.sqrt(covariance[-1, -1])
        share = 1.0
        while (trial := _log_likelihood(rows, design, offset, at + share * step))[0] < likelihood:
            share /= 2
            if share < _NEGLIGIBLE:
                return None
        at, (likelihood, eta) = at + share * step, trial
    return None


def _log_likelihood(rows: Scored, design: Floats, offset: Floats, coefficients: Floats) -> tuple[float, Floats]:
    """sum y eta - ln(1 + e^eta), and the log odds eta (N,)."""
    eta = offset + design @ coefficients
    return float(eta[rows.bad].sum() - np.logaddexp(0.0, eta).sum()), eta
