"""What the shift estimators share: the row checks and the affine fit of log odds. Arrays in, plain numbers out.

Notation of the package: x (n, d) encoded features; raw (n,) raw logit of a source model; y = 1 bad; p probability of
bad; w = p (1 - p). What the numbers mean for a transfer stays in `crossrisk.shift.diagnosis`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

NEWTON_STEPS = 100
LARGEST_STEP = 2.0
"""in standardised log odds: Newton's first step may overshoot where bads are few"""
RIDGE = 1e-3
"""on the slope of the standardised logit, so that separable rows have a finite slope; it moves one from ten bads by
about 1e-4 of itself"""


@dataclass(frozen=True)
class Line:
    """Log odds intercept + slope * raw, fitted to labels."""

    intercept: float
    slope: float
    covariance: Floats
    """(2, 2) of intercept and slope"""

    def logit(self, raw: Floats) -> Floats:
        """Fitted log odds (n,)."""
        return np.asarray(self.intercept + self.slope * raw, np.float64)


def fit_line(raw: Floats, y: NDArray[Any]) -> Line:
    """Maximum-likelihood intercept and slope of logit P(y = 1) = intercept + slope * raw (Cox 1958).

    A logit without variation has slope 0.

    Args:
        raw: (n,).
        y: (n,) 0 or 1, both present.

    Raises:
        ValueError: only one class, or no convergence.
    """
    check_rows(raw, y)
    if not 0 < y.sum() < len(y):
        raise ValueError(f"both classes are needed to fit a line, got {int(y.sum())} bads in {len(y)} rows")
    centre, scale = float(raw.mean()), float(raw.std())
    scale = scale if scale > 0 else 1.0
    z = np.column_stack([np.ones(len(raw)), (raw - centre) / scale])
    penalty = np.diag([0.0, RIDGE])
    beta = np.array([np.log(y.mean() / (1 - y.mean())), 0.0])
    for _ in range(NEWTON_STEPS):
        p = expit(z @ beta)
        information = z.T @ (z * (p * (1 - p))[:, None]) + penalty
        step = np.linalg.solve(information, z.T @ (y - p) - penalty @ beta)
        beta = beta + step * min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), LARGEST_STEP))
        if np.abs(step).max() < 1e-10:
            break
    else:
        raise ValueError(f"no line through {len(y)} rows with {int(y.sum())} bads in {NEWTON_STEPS} Newton steps")
    back = np.array([[1.0, -centre / scale], [0.0, 1.0 / scale]])  # from standardised raw to raw
    intercept, slope = back @ beta
    return Line(float(intercept), float(slope), np.asarray(back @ np.linalg.inv(information) @ back.T, np.float64))


def check_rows(raw: Floats, y: NDArray[Any], x: NDArray[Any] | None = None) -> None:
    """Raise ValueError where lengths differ, a logit is not finite or a label is neither 0 nor 1."""
    if raw.ndim != 1 or y.shape != raw.shape or (x is not None and (x.ndim != 2 or len(x) != len(raw))):
        shapes = [a.shape for a in (raw, y, x) if a is not None]
        raise ValueError(f"expected logits (n,), labels (n,) and features (n, d) of the same rows, got shapes {shapes}")
    if not np.isfinite(raw).all():
        raise ValueError("a raw logit is not finite; contenders hold theirs within bounds")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1; rows without a known label do not belong here")
