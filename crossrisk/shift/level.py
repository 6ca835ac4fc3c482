"""Whether a source model's probabilities hold in the target as they are: level and slope. Logits and labels in.

What recalibration repairs is measured here; what it leaves behind is `crossrisk.shift.concept`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from crossrisk.metrics import MINIMUM_OF_EACH_CLASS, Status, auc_value
from crossrisk.shift.base import Floats, Line, fit_line

FURTHEST_OFFSET = 40.0
"""bounds of the search, in log odds: beyond any difference of raw logits held within +/-16"""
HALVINGS = 60
"""of that interval: 1e-16 of it"""
NOTICED_Z = 2.58
"""for offset and slope, which are two looks: together 2% false alarms"""
TRIFLING_OFFSET = 0.10
"""log odds, 10% of the odds: inside every band of observed/expected"""
TRIFLING_SLOPE = 0.20
"""distance from 1: inside the uncertainty of a slope from 350 bads"""
LOST_SLOPE = 0.5
"""less than half of the differences that the source model sees between accounts is there in the target. With three of
six drivers reversed it is about 0, and little of that is left for residuals to show."""


@dataclass(frozen=True)
class LevelShift:
    """How the target's log odds relate to those of the source model, calibrated at home."""

    status: Status
    offset: float | None
    """log odds of bad in the target minus what the source model says, at equal features"""
    offset_error: float | None
    """its standard error, the uncertainty of the calibration at home included"""
    slope: float | None
    """of the target's log odds on the source model's; 1: differences between accounts are as large as at home"""
    slope_error: float | None
    predicted_observed: float | None
    """expected bads of the source model over bads observed"""
    auc_home: float | None
    auc: float | None
    """of the source model's ranking at home and in the target; a fall can come from the features alone"""
    n_bad: int
    n_good: int

    @property
    def moves(self) -> bool:
        """Whether the source model's probabilities need recalibration, beyond noise and by more than a trifle."""
        if self.status != "ok" or self.offset is None or self.offset_error is None:
            return False
        return abs(self.offset) > max(TRIFLING_OFFSET, NOTICED_Z * self.offset_error) or self.is_stretched

    @property
    def is_stretched(self) -> bool:
        """Whether differences between accounts are not as large as at home: smaller, or larger."""
        if self.status != "ok" or self.slope is None or self.slope_error is None:
            return False
        return abs(self.slope - 1) > max(TRIFLING_SLOPE, NOTICED_Z * self.slope_error)

    @property
    def is_lost(self) -> bool:
        """Whether less than LOST_SLOPE of those differences is left: risk drivers differ, whatever residuals say."""
        return self.is_stretched and self.slope is not None and self.slope < LOST_SLOPE


def level_shift(raw_home: Floats, y_home: NDArray[Any], raw: Floats, y: NDArray[Any]) -> LevelShift:
    """Offset and slope of the target's log odds on the source model's, which is first calibrated at home.

    Args:
        raw_home: (n_h,) raw logits of source rows that the model was not fitted on.
        y_home: (n_h,) their labels.
        raw: (n,) raw logits of target rows.
        y: (n,) their labels.
    """
    n_bad, n_good = int(y.sum()), int(len(y) - y.sum())
    fewest = min(n_bad, n_good, int(y_home.sum()), int(len(y_home) - y_home.sum()))
    if fewest == 0:
        return LevelShift("undefined", None, None, None, None, None, None, None, n_bad, n_good)
    home, here = fit_line(raw_home, y_home), fit_line(raw, y)
    expected = home.logit(raw)
    offset = _offset(expected, n_bad)
    slope, slope_error = _slope(home, here)
    return LevelShift(
        status="ok" if fewest >= MINIMUM_OF_EACH_CLASS else "insufficient",
        offset=offset,
        offset_error=_offset_error(raw, expected + offset, home),
        slope=slope,
        slope_error=slope_error,
        predicted_observed=float(expit(expected).sum() / n_bad),
        auc_home=auc_value(y_home, raw_home),
        auc=auc_value(y, raw),
        n_bad=n_bad,
        n_good=n_good,
    )


def _offset(logits: Floats, n_bad: int) -> float:
    """What must be added to all logits so that as many bads are expected as were seen; by bisection."""
    low, high = -FURTHEST_OFFSET, FURTHEST_OFFSET
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(logits + middle).sum() < n_bad else (low, middle)
    return (low + high) / 2


def _offset_error(raw: Floats, logits: Floats, home: Line) -> float:
    """Standard error of the offset: labels here, 1 / sum w, and the calibration at home at this target's logits."""
    p = expit(logits)
    w = p * (1 - p)
    at = np.array([1.0, float(w @ raw / w.sum())])
    return float(np.sqrt(1 / w.sum() + at @ home.covariance @ at))


def _slope(home: Line, here: Line) -> tuple[float | None, float | None]:
    """Slope here over slope at home, with its standard error by the delta method; None where it is flat at home."""
    if home.slope == 0:
        return None, None
    ratio = here.slope / home.slope
    variance = (here.covariance[1, 1] + ratio**2 * home.covariance[1, 1]) / home.slope**2
    return ratio, float(np.sqrt(variance))
