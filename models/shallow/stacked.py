"""Stacking: the target's labels correct a source model, as far as they can show that it is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrisk.metrics import auc_value
from models.fitted import Logistic, Matrix, Stacked, Trees
from models.shallow.logistic import choose_inverse_penalty, fit_at_penalty

ANCHOR = 10.0
"""Standard deviation that the source's logit is given beside standardised features: its coefficient is then penalised a
hundred times less than a correction, and a strong penalty leaves the source's ranking instead of none."""

INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def fit_stacked(sources: Sequence[Logistic | Trees], x: Matrix, y: NDArray[np.int8]) -> Stacked:
    """Fit on target rows: log odds linear in a source model's logit and in all features.

    The penalty on the features is the strongest whose cross-validated loss is within one standard error of the least:
    with a hundred bads the least loss is mostly luck, and corrections that were luck cost AUC on every real split
    (docs/decisions/0013-stacked.md).

    Args:
        sources: models fitted on the source; the one that ranks these rows best is taken, on a tie the first.
        x: (n, d) encoded target rows, standardised.
        y: (n,) their labels, both classes.

    Raises:
        TrainingError: the solver did not converge.
    """
    raw = [source.raw_logit(x) for source in sources]
    place = int(np.argmax([auc_value(y, one) for one in raw]))
    source, anchor = sources[place], raw[place]
    mean, spread = float(anchor.mean()), float(anchor.std())
    scale = ANCHOR / spread if spread > 0 else 0.0
    inputs = np.column_stack([(anchor - mean) * scale, x.astype(np.float64)])
    penalty = choose_inverse_penalty(inputs, y, seed=0, among=INVERSE_PENALTIES, standard_errors=1.0)
    fitted = fit_at_penalty(inputs, y, penalty)
    coefficients = fitted.coefficients * np.concatenate([[scale], np.ones(x.shape[1])])
    intercept = fitted.intercept - float(coefficients[0]) * mean
    return Stacked(source, np.arange(x.shape[1], dtype=np.int32), coefficients, intercept)
