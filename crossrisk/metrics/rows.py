"""Labelled probabilities, checked once: what every metric of calibration starts from.

Null or non-finite rows are refused or counted out here, never dropped in silence. Nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossrisk.metrics.base import PROBABILITY_FLOOR, Floats, Metric, Status

Unknown = Literal["refuse", "exclude"]


@dataclass(frozen=True)
class Scored:
    """N rows whose label and probability of bad are both known; made by `scored`, which checks them."""

    bad: NDArray[np.bool_]
    """(N,) True = bad"""
    probability: Floats
    """(N,) of bad, in [0, 1]"""
    excluded: int
    """rows left out because their label or probability is unknown"""

    @property
    def n_bad(self) -> int:
        """Bads, m."""
        return int(np.count_nonzero(self.bad))

    @property
    def n_good(self) -> int:
        """Goods, n."""
        return len(self.bad) - self.n_bad

    @property
    def held(self) -> Floats:
        """(N,) probabilities within [1e-6, 1 - 1e-6], fit for a logarithm."""
        return np.clip(self.probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)

    def metric(
        self, value: float | None, interval: tuple[float, float] | None, how: str | None, *, minimum: int
    ) -> Metric:
        """A metric of these rows: `undefined` where it has no value, which one class alone need not mean."""
        low, high = interval or (None, None)
        status = "undefined" if value is None else judge_counts(self.n_bad, self.n_good, minimum)
        return Metric(value, low, high, status, self.n_bad, self.n_good, how if interval else None)


def judge_counts(n_bad: int, n_good: int, minimum: int) -> Status:
    """Status of a value that one row suffices to compute: `undefined` without any, `insufficient` below the minimum.

    Unlike `base.status_of`, which is for values that need both classes: no bads at all are a defined bad rate of 0.
    """
    if n_bad + n_good == 0:
        return "undefined"
    return "ok" if min(n_bad, n_good) >= minimum else "insufficient"


def is_known(label: ArrayLike, probability: ArrayLike) -> NDArray[np.bool_]:
    """(N,) True where label and probability are both finite; null, None and NaN are unknown.

    Raises:
        ValueError: two lengths.
    """
    y, p = _two_columns(label, probability)
    return np.isfinite(y) & np.isfinite(p)


def scored(label: ArrayLike, probability: ArrayLike, *, unknown: Unknown = "refuse") -> Scored:
    """Check labels and probabilities once, for every metric of them.

    Args:
        label: (N,) 1 = bad, 0 = good.
        probability: (N,) of bad, in [0, 1]. The direction is part of the contract: it is never inferred or turned.
        unknown: `refuse` raises where a label or probability is null or not finite; `exclude` leaves the row out and
            counts it.

    Raises:
        ValueError: two lengths, an unknown value that was not to be excluded, a label other than 0 and 1, or a
            probability outside [0, 1]; each says how many rows.
    """
    y, p = _two_columns(label, probability)
    known = np.isfinite(y) & np.isfinite(p)
    excluded = len(known) - int(np.count_nonzero(known))
    if excluded and unknown != "exclude":
        raise ValueError(
            f"expected known labels and finite probabilities; of {len(known)} rows {_count(~np.isfinite(y))} have no"
            f" label and {_count(~np.isfinite(p))} no finite probability; unknown='exclude' leaves them out, counted"
        )
    if excluded:
        y, p = y[known], p[known]
    bad = y == 1
    if others := _count(~bad & (y != 0)):
        raise ValueError(f"expected labels 0 (good) and 1 (bad), {others} of {len(y)} rows have another")
    if outside := _count((p < 0) | (p > 1)):
        raise ValueError(
            f"expected probabilities of bad in [0, 1], {outside} of {len(p)} rows lie outside; points and log odds are"
            " turned into probabilities first (crossrisk.scoring)"
        )
    return Scored(bad, p, excluded)


def tail(confidence: float) -> float:
    """Probability beyond each end of a two-sided interval: 0.025 for 0.95.

    Raises:
        ValueError: confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, such as 0.95, got {confidence}")
    return (1 - confidence) / 2


def _two_columns(label: ArrayLike, probability: ArrayLike) -> tuple[Floats, Floats]:
    y, p = _floats(label), _floats(probability)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"expected a label and a probability a row, got shapes {y.shape} and {p.shape}")
    return y, p


def _floats(values: Any) -> Floats:
    return np.asarray(values, np.float64)


def _count(rows: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(rows))
