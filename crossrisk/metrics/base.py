"""What every metric is (a value, its interval, the counts behind it, whether it may be relied on) and what it reads.

Notation of the package: y = 1 bad; m bads, n goods, N = m + n. Which end of a score is risky is declared by the caller
(`higher_is`), never inferred. A metric that cannot be computed has a status; input that cannot be read is a ValueError
that counts what is wrong, and `known_rows` leaves such rows out and counts them. How a metric is computed stays in the
modules beside this one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Status = Literal["ok", "insufficient", "undefined"]
Direction = Literal["riskier", "safer"]
"""what a higher score means: `riskier` for probabilities and logits of bad, `safer` for points"""

PROBABILITY_FLOOR = 1e-6
"""Where a logarithm is taken, probabilities are held within [1e-6, 1 - 1e-6]."""
MINIMUM_OF_EACH_CLASS = 30
"""Below 30 bads or 30 goods a value is shown but its status is `insufficient`."""


@dataclass(frozen=True)
class Metric:
    """A value with its interval, the counts behind it and whether it may be relied on."""

    value: float | None
    low: float | None
    high: float | None
    status: Status
    n_bad: int
    n_good: int
    interval: str | None = None
    """how low and high were found, such as `DeLong, logit scale`; None: there is no interval"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def undefined_metric(n_bad: int, n_good: int) -> Metric:
    """A metric that these rows cannot give."""
    return Metric(None, None, None, "undefined", n_bad, n_good)


def status_of(n_bad: int, n_good: int, minimum: int = MINIMUM_OF_EACH_CLASS) -> Status:
    """`undefined` without both classes, `insufficient` with fewer than `minimum` of either, else `ok`."""
    if min(n_bad, n_good) == 0:
        return "undefined"
    return "ok" if min(n_bad, n_good) >= minimum else "insufficient"


def critical_z(confidence: float) -> float:
    """The normal quantile of a two-sided interval, such as 1.96 at .95.

    Raises:
        ValueError: a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return float(ndtri((1 + confidence) / 2))


def read_labels(label: ArrayLike) -> Bools:
    """(N,) true for bads.

    Args:
        label: (N,) 0 or 1 (or booleans), a list or an array.

    Raises:
        ValueError: another shape, or labels other than 0 and 1, unknown ones included: how many.
    """
    y = np.asarray(label, np.float64)
    if y.ndim != 1:
        raise ValueError(f"expected one label a row, (N,), got an array of shape {y.shape}")
    bad: Bools = y == 1
    wrong = len(y) - int(bad.sum()) - int((y == 0).sum())
    if wrong:
        raise ValueError(
            f"labels must be 0 or 1; {wrong:,} of {len(y):,} are not: leave unknown labels out with known_rows"
        )
    return bad


def read_scores(score: ArrayLike, rows: int, higher_is: Direction = "riskier") -> Floats:
    """(N,) scores turned so that higher is riskier.

    Args:
        score: (N,) finite, on any scale, a list or an array.
        rows: N, the number of labels.
        higher_is: what a higher score means.

    Raises:
        ValueError: another number of scores, scores that are missing or infinite (how many), or an unknown direction.
    """
    s = np.asarray(score, np.float64)
    if s.shape != (rows,):
        raise ValueError(f"expected one score a label, ({rows},), got an array of shape {s.shape}")
    wrong = rows - int(np.isfinite(s).sum())
    if wrong:
        raise ValueError(
            f"scores must be finite; {wrong:,} of {rows:,} are missing or infinite: leave them out with known_rows"
        )
    if higher_is not in ("riskier", "safer"):
        raise ValueError(f"higher_is must be 'riskier' or 'safer', got {higher_is!r}")
    return -s if higher_is == "safer" else s


@dataclass(frozen=True)
class KnownRows:
    """Rows that a metric can read, and how many were left out."""

    label: Floats
    """(K,) 0 or 1"""
    score: Floats
    """(K,) finite"""
    unknown_labels: int
    missing_scores: int
    """rows with a known label whose score is missing or infinite"""


def known_rows(label: ArrayLike, score: ArrayLike) -> KnownRows:
    """Leave rows without a label or without a finite score out, and count them.

    Args:
        label: (N,) 0, 1 or missing (None, NaN).
        score: (N,) with missing (None, NaN) or infinite ones.

    Raises:
        ValueError: arrays of different shapes.
    """
    y, s = np.asarray(label, np.float64), np.asarray(score, np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise ValueError(f"expected one label and one score a row, got arrays of shapes {y.shape} and {s.shape}")
    labelled, scored = ~np.isnan(y), np.isfinite(s)
    kept = labelled & scored
    return KnownRows(y[kept], s[kept], int((~labelled).sum()), int((labelled & ~scored).sum()))


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Element by element; NaN where the denominator is not positive."""
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan), np.float64)


def wilson(successes: ArrayLike, rows: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Wilson score interval of shares (Wilson 1927), element by element; NaN where there are no rows.

    Args:
        successes: counts, which may be fractional.
        rows: out of how many.
        confidence: share of the interval.
    """
    n, z2 = np.asarray(rows, np.float64), critical_z(confidence) ** 2
    share = divide(successes, n)
    centre = divide(share * n + z2 / 2, n + z2)
    half = divide(np.sqrt(z2 * (share * (1 - share) * n + z2 / 4)), n + z2)
    # rounding may carry a bound past the share itself where that is 0 or 1
    return np.minimum(centre - half, share).clip(0, 1), np.maximum(centre + half, share).clip(0, 1)
