"""Calibration on the target: prior correction, then slope and intercept on the rows that choose.

Raw logits in, `Calibration` out. Never fitted on rows that judge.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from crossrisk.contenders import ADAPTERS, SOURCE_ONLY
from models.fitted import Calibration, Floats, sigmoid

MIN_BADS_FOR_SLOPE = 60
"""Below, only the intercept is fitted: a slope from so few bads is mostly noise."""
MIN_BADS_FOR_INTERCEPT = 10
"""Below, the prior correction stands alone."""
SLOPE_BOUNDS = (0.2, 3.0)
"""A slope outside says that the ranking is not to be trusted, and would turn it round or blow it up."""


def prior_shift(prior_target: float, prior_fitted: float) -> float:
    """logit(prior_target) - logit(prior_fitted): what a change of the bad rate alone adds to every log odds.

    Elkan 2001, theorem 2. Priors in (0, 1).
    """
    return math.log(prior_target / (1 - prior_target)) - math.log(prior_fitted / (1 - prior_fitted))


def prior_shift_of(name: str, *, source_rate: float, target_rate: float, target_weight: float) -> float:
    """What the raw logit of a contender needs for its loss having seen another bad rate than the target's.

    Args:
        name: of the contender: one of the source alone, an adapter, or any other, whose loss ends on the target's rate.
        source_rate: bad rate of source_fit, in (0, 1).
        target_rate: bad rate of the labelled rows of target_fit, in (0, 1).
        target_weight: of an adapter's cross-entropy on target labels, that on the source's being 1; 0: not used.
    """
    if name in SOURCE_ONLY:
        return prior_shift(target_rate, source_rate)
    if name in ADAPTERS:
        return prior_shift(target_rate, (source_rate + target_weight * target_rate) / (1.0 + target_weight))
    return 0.0


def fit_calibration(raw: Floats, label: NDArray[np.int8], *, shift: float) -> Calibration:
    """Intercept and slope of logit P(bad) = intercept + slope * (raw + shift), by maximum likelihood.

    Args:
        raw: (n,) raw logits on the target rows that choose.
        label: (n,) their labels.
        shift: prior correction, which is all that is applied where bads are too few to fit anything.
    """
    bads = int(label.sum())
    x, y = raw + shift, label.astype(np.float64)
    if bads < MIN_BADS_FOR_INTERCEPT or bads == len(label):
        return Calibration(intercept=shift)
    if bads < MIN_BADS_FOR_SLOPE:
        intercept = _fit(x, y, slope_bounds=(1.0, 1.0))[0]
        return Calibration(intercept=intercept + shift)
    intercept, slope = _fit(x, y, slope_bounds=SLOPE_BOUNDS)
    return Calibration(intercept=intercept + slope * shift, slope=slope)


def _fit(x: Floats, y: Floats, *, slope_bounds: tuple[float, float]) -> tuple[float, float]:
    """Maximum-likelihood intercept and slope."""

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        eta = parameters[0] + parameters[1] * x
        residual = sigmoid(eta) - y
        loss = float(np.mean(np.logaddexp(0.0, eta) - y * eta))
        return loss, np.array([residual.mean(), (residual * x).mean()])

    found = minimize(
        loss_and_gradient, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(None, None), slope_bounds]
    )
    return float(found.x[0]), float(found.x[1])
