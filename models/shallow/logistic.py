"""L2 logistic regression, its penalty chosen by cross-validation."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from crossrisk.errors import TrainingError
from models.fitted import Floats, Logistic, Matrix
from models.shallow.parity import refuse_disparity

INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""scikit-learn's C on standardised, one-hot encoded features. 0.01 gave the reference figures of the real splits; the
demo with its 291 features, most of them idle, wants 0.003, and a stacked model of ten features 0.1."""
FOLDS = 5


def fit_logistic(x: Matrix | Floats, y: NDArray[np.int8], *, seed: int = 0) -> Logistic:
    """Fit log odds linear in x under the penalty with the smallest cross-validated log loss.

    Args:
        x: (n, d), standardised.
        y: (n,) 0 or 1, both present.
        seed: of the folds.

    Raises:
        TrainingError: the solver did not converge, or the plain form disagrees with scikit-learn.
    """
    inputs = np.asarray(x, np.float64)
    model = _fit(inputs, y, choose_inverse_penalty(inputs, y, seed=seed))
    form = Logistic(np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))
    refuse_disparity(form.raw_logit, model.predict_proba, inputs)
    return form


def choose_inverse_penalty(x: Floats, y: NDArray[np.int8], *, seed: int) -> float:
    """The member of INVERSE_PENALTIES with the smallest log loss over stratified folds; the stronger one on a tie.

    With fewer bads or goods than folds there is nothing to validate on: the strongest penalty.
    """
    if min(int(y.sum()), int(len(y) - y.sum())) < FOLDS:
        return INVERSE_PENALTIES[0]
    losses = dict.fromkeys(INVERSE_PENALTIES, 0.0)
    for fit, check in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        for inverse_penalty in INVERSE_PENALTIES:
            raw = _fit(x[fit], y[fit], inverse_penalty).decision_function(x[check])
            losses[inverse_penalty] += float(np.sum(np.logaddexp(0.0, raw) - y[check] * raw))
    return min(losses, key=lambda inverse_penalty: losses[inverse_penalty])


def _fit(x: Floats, y: NDArray[np.int8], inverse_penalty: float) -> LogisticRegression:
    # newton-cg on one thread: 31 fits of 5,000 x 336 take 2 s; lbfgs on two threads took 12
    model = LogisticRegression(C=inverse_penalty, solver="newton-cg", max_iter=200)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(x, y)
        except ConvergenceWarning as warning:
            raise TrainingError(
                f"logistic regression did not converge on {x.shape} rows x columns: {warning}"
            ) from warning
