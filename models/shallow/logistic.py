"""L2 logistic regression, its penalty chosen by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

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
    return fit_at_penalty(inputs, y, choose_inverse_penalty(inputs, y, seed=seed))


def fit_at_penalty(inputs: Floats, y: NDArray[np.int8], inverse_penalty: float) -> Logistic:
    """Fit log odds linear in inputs (n, d) under this penalty.

    Raises:
        TrainingError: as `fit_logistic`.
    """
    model = _fit(inputs, y, inverse_penalty)
    form = Logistic(np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))
    refuse_disparity(form.raw_logit, model.predict_proba, inputs)
    return form


def choose_inverse_penalty(
    x: Floats,
    y: NDArray[np.int8],
    *,
    seed: int,
    among: Sequence[float] = INVERSE_PENALTIES,
    standard_errors: float = 0.0,
) -> float:
    """The strongest penalty whose log loss over stratified folds is the least, or larger than it by noise only.

    With fewer bads or goods than folds there is nothing to validate on: the strongest penalty.

    Args:
        x: (n, d).
        y: (n,) 0 or 1.
        seed: of the folds.
        among: inverse penalties, ascending.
        standard_errors: how many of the paired difference a mean loss may lie above the least (Breiman et al. 1984,
            section 3.4.3, has 1).
    """
    if min(int(y.sum()), int(len(y) - y.sum())) < FOLDS:
        return among[0]
    losses = {inverse_penalty: np.empty(len(y)) for inverse_penalty in among}
    for fit, check in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        for inverse_penalty, of_rows in losses.items():
            raw = _fit(x[fit], y[fit], inverse_penalty).decision_function(x[check])
            of_rows[check] = np.logaddexp(0.0, raw) - y[check] * raw
    least = min(losses.values(), key=lambda of_rows: float(of_rows.mean()))

    def is_within_noise(of_rows: Floats) -> bool:
        excess = of_rows - least
        return float(excess.mean()) <= standard_errors * float(excess.std()) / float(np.sqrt(len(y)))

    return next(inverse_penalty for inverse_penalty, of_rows in losses.items() if is_within_noise(of_rows))


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
