"""The population stability index (PSI) and the noise behind it. Counts in, frozen results out; no files, no plots.

Bins are frozen with the model: every later month is counted into the bins of its reference. Every row lands in exactly
one bin; missing values have one of their own, and so have categories that the reference has not seen or that are too
rare there. Which rows and features are compared, and what a light makes of it, stays out (`crossrisk.monitoring`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Verdict = Literal["ok", "amber", "red", "small sample", "detected, small"]

AMBER_PSI, RED_PSI = 0.10, 0.25
"""The customary cut-offs (Siddiqi, Credit Risk Scorecards, 2006); they mean something only together with p."""
AMBER_P = 0.01
"""A PSI above a cut-off counts where noise alone exceeds it in fewer than one month in a hundred."""
DETECTED_P = 0.001
"""Below, a shift is certain even where it is small."""
NULL_TAIL = 0.05
"""The critical value is exceeded by noise alone in this share of months."""
NUMBER_BINS = 10
MOST_LEVELS = 20
"""Rarer levels share a bin: the more bins, the larger the months in which noise alone passes 0.10."""


# --- bins, frozen ---


@dataclass(frozen=True)
class NumberBins:
    """Left-open, right-closed intervals with infinite ends, then a bin for missing."""

    edges: tuple[float, ...]
    """(k,) strictly ascending; k + 1 intervals"""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.edges).all() and (np.diff(self.edges) > 0).all()):
            raise ValueError(f"edges must be finite and strictly ascending, got {self.edges}")

    @property
    def labels(self) -> tuple[str, ...]:
        """(k + 2,) what each bin is called, in the order of `count`."""
        ends = [f"{edge:.4g}" for edge in self.edges]
        if not ends:
            return ("any", "missing")
        inner = [f"{low} to {high}" for low, high in itertools.pairwise(ends)]
        return (f"up to {ends[0]}", *inner, f"above {ends[-1]}", "missing")

    def count(self, values: Floats) -> Counts:
        """(k + 2,) rows in each bin, of (n,) values with NaN for missing."""
        missing = np.isnan(values)
        place = np.searchsorted(self.edges, values[~missing], side="left")
        rows = np.bincount(place, minlength=len(self.edges) + 1)
        return np.append(rows, missing.sum()).astype(np.int64)


@dataclass(frozen=True)
class CategoryBins:
    """One bin a level, one for every other level, rare or unseen in the reference, and one for missing."""

    levels: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """(levels + 2,) what each bin is called, in the order of `count`."""
        return (*self.levels, "other", "missing")

    def count(self, values: Sequence[str | None]) -> Counts:
        """(levels + 2,) rows in each bin, of (n,) values with None for missing."""
        rows = Counter(values)
        missing = rows.pop(None, 0)
        named = [rows.pop(level, 0) for level in self.levels]
        return np.array([*named, rows.total(), missing], np.int64)


@dataclass(frozen=True)
class Histogram:
    """Bins with the rows that the reference has in each."""

    bins: NumberBins | CategoryBins
    counts: tuple[int, ...]
    """in the order of `bins.labels`"""

    def to_json(self) -> dict[str, Any]:
        """Plain data: `edges` or `levels`, and `counts`."""
        return {**asdict(self.bins), "counts": self.counts}


def read_histogram(document: Mapping[str, Any]) -> Histogram:
    """The histogram that `Histogram.to_json` wrote.

    Raises:
        ValueError: as many counts as bins were expected.
    """
    is_number = "edges" in document
    bins = NumberBins(tuple(document["edges"])) if is_number else CategoryBins(tuple(document["levels"]))
    if len(document["counts"]) != len(bins.labels):
        raise ValueError(f"expected {len(bins.labels)} counts, one a bin, got {len(document['counts'])}")
    return Histogram(bins, tuple(document["counts"]))


def describe_numbers(values: Floats, *, bins: int = NUMBER_BINS, decimals: int | None = None) -> Histogram:
    """Bins at the quantiles of a reference, and its rows in them.

    An edge lies halfway between two distinct values of the reference, and not on one: a block of ties, such as the
    leaves of a tree, would otherwise change bins as a whole at the last bit of a computation done elsewhere.
    A constant gets three bins, below, at and above, or its later change would go unseen.

    Args:
        values: (n,) with NaN for missing.
        bins: at most so many intervals; fewer where quantiles coincide.
        decimals: values that agree to so many decimals count as one where edges are placed.
    """
    known = values[np.isfinite(values)]
    known = known if decimals is None else np.round(known, decimals)
    distinct = np.unique(known)
    if len(distinct) == 1:
        edges = np.array([np.nextafter(distinct[0], -np.inf), distinct[0]])
    else:
        edges = _edges_between(known, distinct, bins)
    frozen = NumberBins(tuple(edges.tolist()))
    return Histogram(frozen, tuple(frozen.count(values).tolist()))


def _edges_between(known: Floats, distinct: Floats, bins: int) -> Floats:
    """At most bins - 1 ascending edges: behind each quantile, halfway to the next distinct value."""
    if len(distinct) == 0:
        return distinct
    quantiles = np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf")
    at = np.unique(np.searchsorted(distinct, quantiles))
    at = at[at < len(distinct) - 1]  # nothing lies above the largest value: no edge there
    return np.asarray(distinct[at] / 2 + distinct[at + 1] / 2, np.float64)


def describe_categories(values: Sequence[str | None], *, levels: int = MOST_LEVELS) -> Histogram:
    """One bin for each of the most frequent levels of a reference, and its rows in them.

    Args:
        values: (n,) with None for missing.
        levels: at most so many bins beside `other` and `missing`; of equally frequent levels the first by name.
    """
    rows = Counter(value for value in values if value is not None)
    ranked = sorted(rows, key=lambda level: (-rows[level], level))
    frozen = CategoryBins(tuple(ranked[:levels]))
    return Histogram(frozen, tuple(frozen.count(values).tolist()))


# --- the index ---


@dataclass(frozen=True)
class Stability:
    """A PSI with the noise it must be read against."""

    value: float | None
    """None where either side has no row"""
    bins: int
    """bins with a row on either side"""
    p: float | None
    """share of months without any shift that would show this PSI or more, by the chi-square approximation"""
    critical: float | None
    """PSI that noise alone exceeds in 5% of months"""
    verdict: Verdict
    n: int
    """rows of the month"""
    n_reference: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def psi(reference: Sequence[int] | Counts, actual: Sequence[int] | Counts) -> Stability:
    """Population stability index of two histograms over the same bins, and whether it can be noise.

    PSI = sum (a_i - e_i) ln(a_i / e_i) over the B bins with a row on either side, shares (c_i + 1/2) / (n + B/2).
    Without a shift PSI / (1/n_a + 1/n_e) is about chi-square with B - 1 degrees of freedom (Yurdakul and Naranjo,
    Statistical properties of the population stability index, Journal of Risk Model Validation 14(4), 2020).

    Args:
        reference: (k,) rows a bin.
        actual: (k,) rows a bin.

    Raises:
        ValueError: two lengths, or a negative count.
    """
    e, a = np.asarray(reference, np.int64), np.asarray(actual, np.int64)
    if e.ndim != 1 or e.shape != a.shape or min(e.min(initial=0), a.min(initial=0)) < 0:
        raise ValueError(f"expected two histograms of counts over the same bins, got shapes {e.shape} and {a.shape}")
    n_e, n_a, bins = int(e.sum()), int(a.sum()), int(((e + a) > 0).sum())
    if min(n_e, n_a) == 0:
        return Stability(None, bins, None, None, "small sample", n_a, n_e)
    value = float(_terms(e, a).sum())
    noise = 1 / n_a + 1 / n_e
    if bins == 1:  # one bin holds every row of both: no share can differ, by noise or otherwise
        return Stability(value, bins, 1.0, 0.0, "ok", n_a, n_e)
    p, critical = float(chdtrc(bins - 1, value / noise)), float(chdtri(bins - 1, NULL_TAIL) * noise)
    return Stability(value, bins, p, critical, _judge(value, p, critical), n_a, n_e)


@dataclass(frozen=True)
class Move:
    """The bin that contributes most to a PSI: where to look first."""

    label: str
    share_reference: float
    share: float
    """of the month's rows"""


def largest_move(reference: Histogram, actual: Counts) -> Move | None:
    """The bin with the largest term of `psi`, its shares unsmoothed; None where either side has no row.

    Raises:
        ValueError: as many counts as bins were expected.
    """
    e, a = np.asarray(reference.counts, np.int64), np.asarray(actual, np.int64)
    if e.shape != a.shape:
        raise ValueError(f"expected {len(e)} counts, one a bin of the reference, got {a.shape}")
    if min(e.sum(), a.sum()) == 0:
        return None
    at = int(_terms(e, a).argmax())
    return Move(reference.bins.labels[at], float(e[at] / e.sum()), float(a[at] / a.sum()))


def _terms(e: Counts, a: Counts) -> Floats:
    """(k,) what each bin adds to the PSI: (a_i - e_i) ln(a_i / e_i) of smoothed shares, 0 where both are empty."""
    seen = (e + a) > 0
    bins = int(seen.sum())
    share_e, share_a = (e + 0.5) / (e.sum() + bins / 2), (a + 0.5) / (a.sum() + bins / 2)
    return np.where(seen, (share_a - share_e) * np.log(share_a / share_e), 0.0)


def _judge(value: float, p: float, critical: float) -> Verdict:
    """A shift beyond noise is named at any size; only where there is none may rows be too few to say so."""
    if value >= AMBER_PSI and p < AMBER_P:
        return "red" if value >= RED_PSI else "amber"
    if critical > AMBER_PSI:
        return "small sample"
    return "detected, small" if p < DETECTED_P else "ok"
