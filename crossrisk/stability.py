"""PSI and CSI: how far a month has moved from a frozen reference, and the noise behind it. Counts in, results out.

Bins are frozen with the model: every later month is counted into the bins of its reference, and no month moves an
edge. Every row lands in exactly one bin. Missing values have one of their own; so has each special code of a number
("-1 = no bureau record"), and so have categories that are rare in the reference and those that it has never seen.

CSI is a name for two things. The PSI of a characteristic is `psi` of its counts; the points-weighted shift, how far the
characteristic moved the average score, is `points_shift`.

The zero rule: half a row is added to every bin that is not empty on both sides (`ZERO_RULE`, published beside the
number). It decides the answer: one decile empty in a month of 400 rows gives 1.16 where 1e-6 is added to the shares,
.44 here and .37 where a whole row is added.

Which rows and features are compared, and what a light makes of it, stays out (`crossrisk.monitoring`), and so do files
and plots.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, chdtri, ndtri

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
ADDED_ROWS = 0.5
ZERO_RULE = "add 1/2"
"""What is done about empty bins, in words for whoever reads the number: `ADDED_ROWS` in each bin, on both sides."""
NUMBER_BINS = 10
MOST_LEVELS = 20
"""Rarer levels share a bin: the more bins, the larger the months in which noise alone passes 0.10."""
MOST_RARE = 5_000
"""Rare levels listed, so that they can be told from unseen ones. A column with more (names, job titles) is closer to an
identifier: a list would copy it into every reference, so there rare and unseen share one bin that says so."""
EDGE_SAMPLE = 100_000
"""Rows that edges are placed on at most: a tenth is then one of all rows to within .2 percentage points."""
UNSEEN_NAMED, _UNSEEN_WIDTH = 3, 40
_BLOCK_ROWS = 65_536
"""Rows compared at a time while counting: half a megabyte, which a core's own cache holds."""


# --- columns ---


def as_floats(values: pl.Series | ArrayLike) -> Floats:
    """(n,) float64 with NaN for missing, of a Polars column or anything NumPy reads as numbers.

    Raises:
        ValueError: more than one dimension.
    """
    if isinstance(values, pl.Series):
        return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    x = np.asarray(values, np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected one column of numbers, (n,), got shape {x.shape}; give one column after the other")
    return x


def _value_counts(values: pl.Series | Sequence[str | None]) -> pl.DataFrame:
    """Columns `value` (string, null for missing) and `rows`, one row a distinct value, in no order."""
    column = values if isinstance(values, pl.Series) else pl.Series(list(values), dtype=pl.String)
    counts = column.alias("value").value_counts(name="rows")
    # cast after counting: a dictionary-encoded column of millions of rows has few values
    return counts.select(pl.col("value").cast(pl.String), pl.col("rows").cast(pl.Int64))


# --- bins, frozen ---


@dataclass(frozen=True)
class NumberBins:
    """Left-open, right-closed intervals with infinite ends, then a bin for each special code, then one for missing.

    NaN and both infinities are missing, in the reference as in every month: a division by zero is no large value.
    """

    edges: tuple[float, ...]
    """(k,) strictly ascending; k + 1 intervals"""
    specials: tuple[float, ...] = ()
    """(s,) strictly ascending codes that are no quantities; rows that hold one are in no interval"""

    def __post_init__(self) -> None:
        for name, numbers in (("edges", self.edges), ("specials", self.specials)):
            if not (np.isfinite(numbers).all() and (np.diff(numbers) > 0).all()):
                raise ValueError(f"{name} must be finite and strictly ascending, got {numbers}")

    @property
    def labels(self) -> tuple[str, ...]:
        """(k + 1 + s + 1,) what each bin is called, in the order of `count`."""
        own = (*(f"code {code:.15g}" for code in self.specials), "missing")
        ends = _shortest_texts(self.edges)
        if not ends:
            return ("any", *own)
        inner = [f"{low} to {high}" for low, high in itertools.pairwise(ends)]
        return (f"up to {ends[0]}", *inner, f"above {ends[-1]}", *own)

    def count(self, values: pl.Series | ArrayLike) -> Counts:
        """(k + 1 + s + 1,) rows in each bin, of (n,) values with null or NaN for missing."""
        x = as_floats(values)
        up_to, coded, known = self._compare(x)
        intervals = np.diff(up_to, prepend=0, append=known)
        # a code was counted into the interval it would lie in as a quantity
        np.subtract.at(intervals, np.searchsorted(self.edges, self.specials), coded)
        return np.concatenate([intervals, coded, [len(x) - known]])

    def _compare(self, x: Floats) -> tuple[Counts, Counts, int]:
        """Finite rows up to each edge (k,), rows that hold each code (s,), finite rows.

        One comparison with each edge, block by block, takes 7 ms for 2 million rows and ten bins; a binary search
        for each row takes 90.
        """
        up_to, coded, known = np.zeros(len(self.edges), np.int64), np.zeros(len(self.specials), np.int64), 0
        for start in range(0, len(x), _BLOCK_ROWS):
            block = x[start : start + _BLOCK_ROWS]
            is_finite = np.isfinite(block)
            known += int(np.count_nonzero(is_finite))
            if not is_finite.all():
                block = block[is_finite]
            up_to += np.array([np.count_nonzero(block <= edge) for edge in self.edges], np.int64)
            coded += np.array([np.count_nonzero(block == code) for code in self.specials], np.int64)
        return up_to, coded, known


def _shortest_texts(numbers: Sequence[float]) -> list[str]:
    """Rounded to four digits each, or to as many more as it takes to tell them apart; 12350 and not 1.235e+04."""
    for digits in range(4, 16):
        texts = [f"{float(f'{number:.{digits}g}'):.15g}" for number in numbers]
        if len(set(texts)) == len(texts):
            return texts
    return [repr(number) for number in numbers]


@dataclass(frozen=True)
class CategoryBins:
    """One bin for each frequent level, one for `rare` levels of the reference, one for `unseen` ones, one for missing.

    Where the rare levels are not listed, rare and unseen share the bin `rare or unseen`.
    """

    levels: tuple[str, ...]
    rare: tuple[str, ...] | None = ()
    """levels of the reference that have no bin of their own; None where they are too many to list, or were not listed
    when the bins were frozen"""

    def __post_init__(self) -> None:
        known = [*self.levels, *(self.rare or ())]
        if len(set(known)) < len(known):
            twice = next(level for level in known if known.count(level) > 1)
            raise ValueError(f"level {twice!r} is listed twice; every row must land in exactly one bin")

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin is called, in the order of `count`; a level that is called like a bin of ours is quoted."""
        own = ("rare or unseen", "missing") if self.rare is None else ("rare", "unseen", "missing")
        return (*(f'"{level}"' if level in own else level for level in self.levels), *own)

    def count(self, values: pl.Series | Sequence[str | None]) -> Counts:
        """(bins,) rows in each bin, of (n,) values with null or None for missing. An empty text is a level."""
        counts = _value_counts(values)
        named = dict(counts.filter(pl.col("value").is_in(list(self.levels))).iter_rows())
        rare = int(counts.filter(pl.col("value").is_in(list(self.rare or ())))["rows"].sum())
        missing = int(counts.filter(pl.col("value").is_null())["rows"].sum())
        levels = [named.get(level, 0) for level in self.levels]
        rest = int(counts["rows"].sum()) - sum(levels) - rare - missing
        return np.array([*levels, *([rest] if self.rare is None else [rare, rest]), missing], np.int64)

    def name_unseen(self, values: pl.Series | Sequence[str | None], most: int = UNSEEN_NAMED) -> tuple[Unseen, ...]:
        """The most frequent unseen values, most rows first, then by name; none where they cannot be told from rare."""
        if self.rare is None:
            return ()
        known = [*self.levels, *self.rare]
        counts = _value_counts(values).filter(pl.col("value").is_not_null() & ~pl.col("value").is_in(known))
        first = counts.sort(["rows", "value"], descending=[True, False]).head(most)
        return tuple(Unseen(_printable(value), rows) for value, rows in first.iter_rows())


@dataclass(frozen=True)
class Unseen:
    """A category that the reference has never seen."""

    value: str
    """as it may be shown: cut to 40 characters, what does not print written as its code"""
    rows: int


def _printable(text: str) -> str:
    shown = "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text[: _UNSEEN_WIDTH + 1])
    return shown if len(shown) <= _UNSEEN_WIDTH else shown[: _UNSEEN_WIDTH - 1] + "…"


@dataclass(frozen=True)
class Histogram:
    """Bins with the rows that the reference has in each."""

    bins: NumberBins | CategoryBins
    counts: tuple[int, ...]
    """in the order of `bins.labels`"""

    def to_json(self) -> dict[str, Any]:
        """Plain data: `edges` and `specials`, or `levels` and `rare`; and `counts`."""
        return {**asdict(self.bins), "counts": self.counts}


def read_histogram(document: Mapping[str, Any]) -> Histogram:
    """The histogram that `Histogram.to_json` wrote, also one of before codes and rare levels were kept.

    Those read as what they are: no bin for a code, whose rows are among the missing, and one for rare or unseen.

    Raises:
        ValueError: as many counts as bins were expected.
    """
    bins: NumberBins | CategoryBins
    if "edges" in document:
        bins = NumberBins(tuple(document["edges"]), tuple(document.get("specials", ())))
    else:
        rare = document.get("rare")
        bins = CategoryBins(tuple(document["levels"]), None if rare is None else tuple(rare))
    if len(document["counts"]) != len(bins.labels):
        raise ValueError(f"expected {len(bins.labels)} counts, one a bin, got {len(document['counts'])}")
    return Histogram(bins, tuple(document["counts"]))


# --- bins, derived from a reference ---


def describe_numbers(
    values: pl.Series | ArrayLike,
    *,
    bins: int = NUMBER_BINS,
    specials: Sequence[float] = (),
    decimals: int | None = None,
) -> Histogram:
    """Bins at the quantiles of a reference, and its rows in them.

    An edge lies halfway between two distinct values of the reference, and not on one: a block of ties, such as the
    leaves of a tree, would otherwise change bins as a whole at the last bit of a computation done elsewhere.
    A value that holds two quantiles or more is parted from both of its neighbours, also from what may come beyond the
    ends; a constant gets three bins, below, at and above. Otherwise a later change could go unseen.
    Of more than `EDGE_SAMPLE` rows, edges are placed on a fixed sample; the counts are of all rows.

    Args:
        values: (n,) with null or NaN for missing; infinities are missing too.
        bins: at most so many intervals; fewer where quantiles coincide, three for a constant.
        specials: codes that are no quantities; each has its own bin, seen in the reference or not.
        decimals: values that agree to so many decimals count as one where edges are placed.
    """
    x = as_floats(values)
    codes = tuple(sorted({float(code) for code in specials}))
    known = x[np.isfinite(x) & ~np.isin(x, codes)] if codes else x[np.isfinite(x)]
    placed = np.sort(_sample(known) if decimals is None else np.round(_sample(known), decimals))
    frozen = NumberBins(tuple(_place_edges(placed, bins).tolist()), codes)
    return Histogram(frozen, tuple(frozen.count(x).tolist()))


def _sample(known: Floats) -> Floats:
    """At most EDGE_SAMPLE values, the same for the same rows."""
    if len(known) <= EDGE_SAMPLE:
        return known
    # multiples of the golden ratio spread evenly and, unlike every k-th row, follow no period of the table
    shares = np.arange(EDGE_SAMPLE) * ((5**0.5 - 1) / 2) % 1.0
    return known[(shares * len(known)).astype(np.int64)]


def _place_edges(ordered: Floats, bins: int) -> Floats:
    """(at most bins - 1,) ascending edges for ascending values; two for a constant."""
    n = len(ordered)
    if n == 0:
        return ordered
    if ordered[0] == ordered[-1]:
        below = math.nextafter(ordered[0], -math.inf)  # of the lowest number of all there is none
        return np.array([edge for edge in (below, ordered[0]) if math.isfinite(edge)])
    ranks = [-(-i * n // bins) - 1 for i in range(1, bins)]  # of the quantiles; whole numbers do not round
    edges: list[float] = []
    for value, held in zip(*np.unique(ordered[ranks], return_counts=True), strict=True):
        first, behind = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
        edges += _edges_around(ordered, int(first), int(behind), is_block=bool(held > 1))
    return np.unique([edge for edge in edges if math.isfinite(edge)])


def _edges_around(ordered: Floats, first: int, behind: int, *, is_block: bool) -> tuple[float, ...]:
    """Edges of the value at ranks [first, behind): above it, or below where it is the largest; both of a block.

    Beyond an end the other neighbour, mirrored, says how far is far: a code or a sign that was never there before must
    not join a block at zero.
    """
    value = float(ordered[first])
    below = float(ordered[first - 1]) if first > 0 else 2 * value - float(ordered[behind])
    above = float(ordered[behind]) if behind < len(ordered) else 2 * value - below
    lower, upper = _between(below, value), _between(value, above)
    if is_block:
        return lower, upper
    return (upper,) if behind < len(ordered) else (lower,)


def _between(low: float, high: float) -> float:
    """Halfway, but never `high` itself: intervals are closed on the right."""
    return min(max(low / 2 + high / 2, low), math.nextafter(high, -math.inf))


def describe_categories(values: pl.Series | Sequence[str | None], *, levels: int = MOST_LEVELS) -> Histogram:
    """One bin for each of the most frequent levels of a reference, and its rows in them.

    Args:
        values: (n,) with null or None for missing.
        levels: at most so many get a bin of their own; of equally frequent ones the first by name. The others are
            listed as rare, unless they are more than `MOST_RARE`.
    """
    counts = _value_counts(values).filter(pl.col("value").is_not_null())
    by_rows = counts.sort(["rows", "value"], descending=[True, False])["value"]
    ranked = tuple(by_rows.head(levels + MOST_RARE + 1))
    rare = ranked[levels:]
    frozen = CategoryBins(ranked[:levels], rare if len(rare) <= MOST_RARE else None)
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
        """Plain data with the zero rule beside the number; undefined numbers are None."""
        return {**asdict(self), "zero_rule": ZERO_RULE}


def _same_bins(reference: ArrayLike, actual: ArrayLike) -> tuple[Counts, Counts]:
    """Both histograms as counts, checked."""
    e, a = np.asarray(reference), np.asarray(actual)
    for counts in (e, a):
        if counts.size and counts.dtype.kind not in "iu":
            raise ValueError(
                f"expected rows a bin, in whole numbers, got {counts.dtype}: values are binned first, by "
                "describe_numbers(reference) and bins.count(month)"
            )
    if e.ndim != 1 or e.shape != a.shape or min(e.min(initial=0), a.min(initial=0)) < 0:
        raise ValueError(f"expected two histograms of counts over the same bins, got shapes {e.shape} and {a.shape}")
    return e.astype(np.int64), a.astype(np.int64)


def psi(reference: Sequence[int] | Counts, actual: Sequence[int] | Counts) -> Stability:
    """Population stability index of two histograms over the same bins, and whether it can be noise.

    PSI = sum (a_i - e_i) ln(a_i / e_i) over the B bins with a row on either side, shares (c_i + 1/2) / (n + B/2):
    half a row more in each of those bins, so that an empty one makes the index large and not infinite.
    Without a shift PSI / (1/n_a + 1/n_e) is about chi-square with B - 1 degrees of freedom (Yurdakul and Naranjo,
    Statistical properties of the population stability index, Journal of Risk Model Validation 14(4), 2020).

    Args:
        reference: (k,) rows a bin.
        actual: (k,) rows a bin.

    Raises:
        ValueError: values instead of counts, two lengths, or a negative count.
    """
    e, a = _same_bins(reference, actual)
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


def largest_move(reference: Histogram, actual: Counts, unseen: Sequence[Unseen] = ()) -> Move | None:
    """The bin with the largest term of `psi`, its shares unsmoothed; None where either side has no row.

    Args:
        reference: bins and their rows.
        actual: (k,) rows a bin.
        unseen: categories as `CategoryBins.name_unseen` found them; where their bin moved most, its label names them.

    Raises:
        ValueError: as many counts as bins were expected.
    """
    e, a = _same_bins(reference.counts, actual)
    if min(e.sum(), a.sum()) == 0:
        return None
    at = int(_terms(e, a).argmax())
    label = reference.bins.labels[at]
    if unseen and at == len(e) - 2:  # the bin before `missing`, in every CategoryBins
        label = f"{label} ({', '.join(one.value for one in unseen)})"
    return Move(label, float(e[at] / e.sum()), float(a[at] / a.sum()))


def _terms(e: Counts, a: Counts) -> Floats:
    """(k,) what each bin adds to the PSI: (a_i - e_i) ln(a_i / e_i) of smoothed shares, 0 where both are empty."""
    seen = (e + a) > 0
    bins = int(seen.sum())
    share_e = (e + ADDED_ROWS) / (e.sum() + bins * ADDED_ROWS)
    share_a = (a + ADDED_ROWS) / (a.sum() + bins * ADDED_ROWS)
    return np.where(seen, (share_a - share_e) * np.log(share_a / share_e), 0.0)


def _judge(value: float, p: float, critical: float) -> Verdict:
    """A shift beyond noise is named at any size; only where there is none may rows be too few to say so."""
    if value >= AMBER_PSI and p < AMBER_P:
        return "red" if value >= RED_PSI else "amber"
    if critical > AMBER_PSI:
        return "small sample"
    return "detected, small" if p < DETECTED_P else "ok"


# --- the points-weighted shift ---


@dataclass(frozen=True)
class PointsShift:
    """How far a characteristic moved the average score, in points, with the interval of sampling noise."""

    value: float | None
    """positive where the average score has risen; None where either side has no row"""
    low: float | None
    high: float | None
    """of the 95% interval, of the difference of two means; None where either side has fewer than two rows"""
    n: int
    """rows of the month"""
    n_reference: int


def points_shift(
    reference: Sequence[int] | Counts, actual: Sequence[int] | Counts, points: Sequence[float] | Floats
) -> PointsShift:
    """The other CSI: sum (a_i - e_i) points_i, with the plain shares of rows a_i = c_i / n, for nothing is divided by.

    The PSI of a characteristic says that it moved, in no direction and at no price; this says what that did to the
    score. Over all characteristics of an additive scorecard the shifts add up to that of the average score.

    Args:
        reference: (k,) rows a bin.
        actual: (k,) rows a bin.
        points: (k,) score points of each bin, missing and unseen included; for a network the mean attribution.

    Raises:
        ValueError: values instead of counts, lengths that differ, or points that are not finite.
    """
    e, a = _same_bins(reference, actual)
    worth = np.asarray(points, np.float64)
    if worth.shape != e.shape or not np.isfinite(worth).all():
        raise ValueError(f"expected {e.shape} finite points, one value a bin, got {worth.shape}: {worth}")
    n_e, n_a = int(e.sum()), int(a.sum())
    if min(n_e, n_a) == 0:
        return PointsShift(None, None, None, n_a, n_e)
    value = float((a / n_a - e / n_e) @ worth)
    if min(n_e, n_a) < 2:
        return PointsShift(value, None, None, n_a, n_e)
    half = float(ndtri(1 - NULL_TAIL / 2)) * math.sqrt(_variance_of_mean(a, worth) + _variance_of_mean(e, worth))
    return PointsShift(value, value - half, value + half, n_a, n_e)


def _variance_of_mean(counts: Counts, worth: Floats) -> float:
    """s^2 / n of rows that are worth as much as their bin."""
    n = counts.sum()
    mean = counts @ worth / n
    return float(counts @ (worth - mean) ** 2 / (n - 1) / n)
