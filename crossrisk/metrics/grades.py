"""Calibration by grade: for each grade of a frozen scale its bad rate, Jeffreys interval and test of the PD.

Checked rows and their grades in, frozen results out; no files, no plots. A grade without rows is a row of the table.
How a lender chooses its grades stays out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Metric
from crossrisk.metrics.rows import Scored, judge_counts, tail

JEFFREYS_INTERVAL = "Jeffreys"
UNSEEN, MISSING = "unseen", "missing"


@dataclass(frozen=True)
class Grading:
    """Which grade of a frozen scale each row has; every row has exactly one."""

    names: tuple[str, ...]
    """(G,) in the order of the scale"""
    place: NDArray[np.int64]
    """(N,) position of each row's grade in `names`"""

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"expected distinct names of grades, got {self.names}")
        if self.place.size and not 0 <= self.place.min() <= self.place.max() < len(self.names):
            raise ValueError(
                f"expected positions below {len(self.names)}, got {self.place.min()} to {self.place.max()}"
            )


def grade_by_edges(values: ArrayLike, edges: Sequence[float]) -> Grading:
    """Grades between frozen edges of a probability or score: left-open, right-closed, infinite ends.

    Args:
        values: (N,) finite; rows without a score are left out, and counted, before (`crossrisk.metrics.rows.scored`).
        edges: (G - 1,) strictly ascending, kept with the model.

    Raises:
        ValueError: edges that do not ascend, or values that are not finite, with their number.
    """
    v, cuts = np.asarray(values, np.float64), np.asarray(edges, np.float64)
    if not (np.isfinite(cuts).all() and (np.diff(cuts) > 0).all()):
        raise ValueError(f"expected finite edges in ascending order, got {tuple(edges)}")
    if others := int(np.count_nonzero(~np.isfinite(v))):
        raise ValueError(f"expected finite values to grade, {others} of {len(v)} rows have none")
    ends = ["-inf", *(f"{edge:.10g}" for edge in cuts.tolist()), "inf"]
    names = tuple(f"({low}, {high}]" for low, high in itertools.pairwise(ends))
    return Grading(names, np.searchsorted(cuts, v, side="left").astype(np.int64))


def grade_by_name(names_of_rows: Sequence[str | None] | pl.Series, scale: Sequence[str]) -> Grading:
    """Grades given row by row; names outside the scale share the grade `unseen`, rows without one `missing`.

    Args:
        names_of_rows: (N,) grade of each row, None where it has none.
        scale: every grade, safest or riskiest first as the lender has it; kept with the model.
    """
    names = (*scale, UNSEEN, MISSING)
    given = pl.Series(names_of_rows, dtype=pl.String)
    position = {name: place for place, name in enumerate(scale)}
    place = given.replace_strict(position, default=len(scale), return_dtype=pl.Int64)
    return Grading(names, place.set(given.is_null(), len(scale) + 1).to_numpy())


@dataclass(frozen=True)
class Grade:
    """One grade of the scale on these rows."""

    name: str
    n: int
    mean_probability: float | None
    """mean of the probabilities, the PD that the grade stands for"""
    bad_rate: Metric
    """with the Jeffreys interval"""
    observed_expected: Metric
    """bad rate over mean probability, its interval the bad rate's divided by the same"""
    jeffreys_p: float | None
    """one-sided p that the PD is high enough, P(true rate <= mean probability); below 0.05 the PD is too low"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def grade_table(
    rows: Scored, grading: Grading, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS
) -> tuple[Grade, ...]:
    """A `Grade` for every name of the scale, in its order; the counts add up to all rows.

    The posterior of a grade's bad rate is Beta(D + 1/2, n - D + 1/2); its interval ends at 0 without bads and at 1
    without goods (Brown, Cai and DasGupta, Statistical Science 16 (2001), section 3.1). The one-sided test is that of
    the European Central Bank's instructions for reporting the validation results of internal models (PD back-testing).

    Raises:
        ValueError: as many grades as rows were expected.
    """
    if grading.place.shape != rows.bad.shape:
        raise ValueError(f"expected a grade for each of {len(rows.bad)} rows, got {grading.place.shape}")
    kinds = len(grading.names)
    counts = np.bincount(grading.place, minlength=kinds).tolist()
    bads = np.bincount(grading.place[rows.bad], minlength=kinds).tolist()
    sums = np.bincount(grading.place, weights=rows.probability, minlength=kinds).tolist()
    return tuple(
        _grade(name, n, bad, expected, tail(confidence), minimum)
        for name, n, bad, expected in zip(grading.names, counts, bads, sums, strict=True)
    )


def _grade(name: str, n: int, n_bad: int, expected: float, alpha: float, minimum: int) -> Grade:
    status = judge_counts(n_bad, n - n_bad, minimum)
    if n == 0:
        empty = Metric(None, None, None, status, 0, 0)
        return Grade(name, 0, None, empty, empty, None)
    low, high = _jeffreys(n_bad, n, alpha)
    mean, rate = expected / n, n_bad / n
    bad_rate = Metric(rate, low, high, status, n_bad, n - n_bad, JEFFREYS_INTERVAL)
    ratio = (
        Metric(rate / mean, low / mean, high / mean, status, n_bad, n - n_bad, JEFFREYS_INTERVAL)
        if mean > 0
        else Metric(None, None, None, "undefined", n_bad, n - n_bad)
    )
    jeffreys_p = float(betainc(n_bad + 0.5, n - n_bad + 0.5, min(mean, 1.0)))
    return Grade(name, n, mean, bad_rate, ratio, jeffreys_p)


def _jeffreys(n_bad: int, n: int, alpha: float) -> tuple[float, float]:
    a, b = n_bad + 0.5, n - n_bad + 0.5
    low = 0.0 if n_bad == 0 else float(betaincinv(a, b, alpha))
    high = 1.0 if n_bad == n else float(betaincinv(a, b, 1 - alpha))
    return low, high
