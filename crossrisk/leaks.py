"""Columns that know the outcome: single columns that rank the bads too well to have been known at the decision.

A frame and its labels in, one frozen reading a column out; what is done about a finding (left out of a draft, said in
a memo) stays with the caller. Columns are judged one at a time: a leak that shows in a combination only is not seen,
nor one whose column ranks no better than honest ones do (total payments reach .75): those are caught by their dates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from crossrisk.metrics import MINIMUM_OF_EACH_CLASS, Status, auc_value
from crossrisk.metrics.base import Floats, status_of

Kind = Literal["value", "missingness"]

LEAK_AUC = 0.82
"""On the four public credit sets the known leaks start at .835 and the strongest honest column ends at .778."""
CONFIDENCE = 0.95
"""Share of the interval whose lower bound says how sure a reading is."""
FOLDS = 5
PRIOR_ROWS = 10.0
"""A level's bad rate is drawn to the overall one as if it had so many rows more: levels of one row rank nothing."""


@dataclass(frozen=True)
class Reading:
    """How well one column alone, or its being missing, ranks bads above goods."""

    column: str
    kind: Kind
    auc: float | None
    """in [.5, 1]: the better of both directions; None where one of the classes is absent"""
    low: float | None
    """lower end of the 95% interval"""
    n_bad: int
    """bads that the reading rests on: for a value, those where the column is not missing"""
    n_good: int
    status: Status
    """`insufficient` below 30 bads or goods: an AUC of .82 from 10 bads is noise"""
    threshold: float

    @property
    def is_leak(self) -> bool:
        """Whether the AUC is implausibly high, however few rows it rests on."""
        return self.auc is not None and self.auc >= self.threshold

    @property
    def is_certain(self) -> bool:
        """Whether even the lower end of the interval is implausibly high, on enough bads and goods."""
        return self.status == "ok" and self.low is not None and self.low >= self.threshold

    @property
    def sentence(self) -> str:
        """The reading in words, for a comment, a log or a memo."""
        what = repr(self.column) if self.kind == "value" else f"whether {self.column!r} is missing"
        rows = f"{self.n_bad:,} bads and {self.n_good:,} goods"
        if self.auc is None:
            return f"{what} cannot be judged: {rows}"
        measured = f"{what} alone ranks bads and goods with AUC {self.auc:.3f} (at least {self.low:.3f}; {rows})"
        if not self.is_leak:
            return f"{measured}, below {self.threshold:g}: plausible"
        if self.status != "ok":
            return f"{measured}: above {self.threshold:g}, but on too few rows to tell a leak from chance"
        sure = "implausibly high" if self.is_certain else "suspiciously high"
        return f"{measured}: {sure} against {self.threshold:g}; was it known at the decision?"

    def to_json(self) -> dict[str, Any]:
        """Plain data, the sentence included."""
        return {**asdict(self), "is_leak": self.is_leak, "is_certain": self.is_certain, "sentence": self.sentence}


def find_leaks(
    rows: pl.DataFrame, label: pl.Series, columns: Sequence[str] | None = None, *, threshold: float = LEAK_AUC
) -> tuple[Reading, ...]:
    """The columns that rank the label implausibly well by their value or by being missing, strongest first.

    Arguments and errors are those of `read_columns`; a finding on few rows is among the result, with its status.
    """
    return tuple(reading for reading in read_columns(rows, label, columns, threshold=threshold) if reading.is_leak)


def read_columns(
    rows: pl.DataFrame, label: pl.Series, columns: Sequence[str] | None = None, *, threshold: float = LEAK_AUC
) -> tuple[Reading, ...]:
    """How well every column alone ranks the label, strongest first: its value and, where some miss, its missingness.

    Numbers, booleans and dates rank by value, in the better direction. Categories rank by the bad rate of their level
    in the other folds, so that a level of few rows cannot repeat its own label. NaN is a missing value.

    Args:
        rows: (N rows) the candidate columns; nested and binary ones are read for their missingness only.
        label: (N,) 1 bad, 0 good, null unknown; unknown rows are not looked at.
        columns: default all of rows.
        threshold: AUC from which a column is a leak, in (.5, 1].

    Raises:
        ValueError: lengths that differ, a label other than 0, 1 and null, a threshold out of bounds, or an unknown
            column.
    """
    if not 0.5 < threshold <= 1:
        raise ValueError(f"threshold must be in (.5, 1], got {threshold}")
    if len(label) != rows.height:
        raise ValueError(f"{rows.height} rows came with {len(label)} labels")
    names = list(rows.columns if columns is None else columns)
    unknown = sorted(set(names) - set(rows.columns))
    if unknown:
        raise ValueError(f"column {unknown[0]!r} is not in the frame")
    known = label.is_not_null()
    bad = label.filter(known).cast(pl.Float64).to_numpy()
    if not np.isin(bad, (0.0, 1.0)).all():
        raise ValueError("labels must be 0, 1 or null")
    readings = [reading for name in names for reading in _read_column(rows[name].filter(known), bad, threshold)]
    return tuple(sorted(readings, key=lambda reading: -(reading.auc or 0.0)))


def _read_column(values: pl.Series, bad: Floats, threshold: float) -> Iterator[Reading]:
    if values.dtype.is_float():
        values = values.fill_nan(None)
    missing = values.is_null().to_numpy()
    if missing.any() and not missing.all():
        yield _reading(values.name, "missingness", _either_way(auc_value(bad, missing)), bad, threshold)
    present = values.drop_nulls()
    if present.is_empty():
        return
    if values.dtype.is_numeric() or values.dtype.is_temporal() or values.dtype == pl.Boolean:
        auc = _either_way(auc_value(bad[~missing], _sortable(present)))
    elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
        auc = _category_auc(present, bad[~missing])
    else:
        return
    yield _reading(values.name, "value", auc, bad[~missing], threshold)


def _sortable(values: pl.Series) -> NDArray[Any]:
    return (values.cast(pl.Float64) if values.dtype.is_decimal() else values.to_physical()).to_numpy()


def _either_way(auc: float) -> float:
    return max(auc, 1.0 - auc)


def _category_auc(levels: pl.Series, bad: Floats) -> float:
    """AUC of the levels' out-of-fold bad rates; at least .5, for the rates already give the direction.

    Pairs are formed within folds: a level's rates differ between folds by exactly the labels left out of them, so
    that ranking across folds would score pure noise below .5, and a constant column at 0 where folds are single rows.
    """
    codes = levels.cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
    fold = _stratified_folds(bad)
    cell = codes * FOLDS + fold
    shape = (int(codes.max()) + 1, FOLDS)
    n = np.bincount(cell, minlength=shape[0] * FOLDS).reshape(shape)
    bads = np.bincount(cell, weights=bad, minlength=shape[0] * FOLDS).reshape(shape)
    others, other_bads = n.sum(axis=1, keepdims=True) - n, bads.sum(axis=1, keepdims=True) - bads
    prior = other_bads.sum(axis=0) / np.maximum(others.sum(axis=0), 1)
    rate = (other_bads + PRIOR_ROWS * prior) / (others + PRIOR_ROWS)
    pairs = bads.sum(axis=0) * (n - bads).sum(axis=0)
    if not pairs.any():
        return np.nan
    scores = rate.ravel()[cell]
    by_fold = [auc_value(bad[fold == k], scores[fold == k]) if pairs[k] else 0.0 for k in range(FOLDS)]
    return max(0.5, float(np.average(by_fold, weights=pairs)))


def _stratified_folds(bad: Floats) -> NDArray[np.int64]:
    """A fold for each row, equal shares of bads and of goods in each; drawn, for files are often sorted."""
    fold = np.empty(len(bad), np.int64)
    rng = np.random.default_rng(0)  # the folds are no choice of anyone's: the same readings for the same rows
    for label in (0.0, 1.0):
        of_class = np.flatnonzero(bad == label)
        fold[of_class] = rng.permutation(len(of_class)) % FOLDS
    return fold


def _reading(column: str, kind: Kind, auc: float, bad: Floats, threshold: float) -> Reading:
    n_bad = int(bad.sum())
    n_good = len(bad) - n_bad
    status = status_of(n_bad, n_good, MINIMUM_OF_EACH_CLASS)
    if not np.isfinite(auc):
        return Reading(column, kind, None, None, n_bad, n_good, "undefined", threshold)
    return Reading(column, kind, auc, _lower_bound(auc, n_bad, n_good), n_bad, n_good, status, threshold)


def _lower_bound(auc: float, m: int, n: int) -> float:
    """Lower end of the interval on the logit scale, with the standard error of Hanley and McNeil (1982, equation 2).

    A perfect ranking has a standard error of 0; half a pair in m is taken off it, so that 3 bads prove little.
    """
    a = min(auc, 1 - 0.5 / m)
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    variance = (a * (1 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2)) / (m * n)
    z = ndtri((1 + CONFIDENCE) / 2)
    return min(auc, float(expit(logit(a) - z * np.sqrt(variance) / (a * (1 - a)))))
