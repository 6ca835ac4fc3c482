"""What a score achieves along its range: the KS bucket table, lift and capture. Arrays in, frozen results out.

Buckets are cut at quantiles of a reference and frozen with the model, by the rule that the PSI's bins follow, so that
a later month is read in the buckets of the development sample. Curves and drawing stay out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from crossrisk.metrics.base import (
    MINIMUM_OF_EACH_CLASS,
    Bools,
    Direction,
    Floats,
    Metric,
    Status,
    divide,
    read_labels,
    read_scores,
    status_of,
    undefined_metric,
    wilson,
)
from crossrisk.metrics.ranking import ScoreCounts, count_risks, count_scores
from crossrisk.stability import NumberBins, describe_numbers

LIFT_SHARES = (0.05, 0.10, 0.20)
CAPTURE_INTERVAL = "Wilson, cut-off taken as fixed"


# --- the bucket table ---


def bucket_edges(reference: ArrayLike, *, buckets: int = 10) -> tuple[float, ...]:
    """Inner edges of at most `buckets` buckets with about equally many reference rows, to be stored with the model.

    Strictly ascending, halfway between two distinct scores; fewer where quantiles coincide. The outer edges are
    infinite and not stored. Rule: `crossrisk.stability.describe_numbers`.

    Args:
        reference: (n,) scores; missing ones are ignored.
        buckets: 2 or more.

    Raises:
        ValueError: no finite score, or fewer than two buckets.
    """
    scores = np.asarray(reference, np.float64)
    if buckets < 2 or not np.isfinite(scores).any():
        raise ValueError(f"expected a finite reference score and 2 buckets or more, got {scores.size} and {buckets}")
    found = describe_numbers(scores[np.isfinite(scores)], bins=buckets)
    assert isinstance(found.bins, NumberBins), "numbers are described by edges"
    edges, below = found.bins.edges, found.counts[0]
    return edges if below else edges[1:]  # a tied block at the end is parted from what no reference score is: no bucket


@dataclass(frozen=True)
class RankBreak:
    """Two neighbouring buckets, empty ones skipped, of which the riskier has the lower bad rate."""

    riskier: int
    """row in `KsTable.buckets`"""
    safer: int
    p: float
    """two-sided, of the two-proportion z test with pooled variance: a break may be noise"""


@dataclass(frozen=True, eq=False)
class KsTable:
    """The KS bucket table of one score on one sample; its totals reconcile to N."""

    buckets: pl.DataFrame
    """One row a bucket, riskiest first; null where a quotient has no denominator.

    low, high: above low and up to high, null where unbounded; n, bads, goods; share: n of all rows, those without a
    score included; bad_rate, bad_rate_low, bad_rate_high: with its Wilson interval; mean_probability: of bad, not of a
    decision; odds: goods per bad; lift: bad rate / bad rate of all buckets; capture: share of the bads that are here;
    bads_from_risky, goods_from_risky, rows_from_risky: shares in this bucket and the riskier ones; the same from_safe;
    ks: bads_from_risky - goods_from_risky; cumulative_lift: bads_from_risky / rows_from_risky
    """
    missing: pl.DataFrame
    """The rows without a score in one row, shown apart: n to odds of `buckets`."""
    rows: int
    """N: n of `buckets` and of `missing` together"""
    bucket_ks: float | None
    """largest |ks| of the buckets, which is a bucket KS: never above `exact_ks`, and not to be mistaken for it"""
    exact_ks: float | None
    """at the distinct scores of the same rows"""
    breaks: tuple[RankBreak, ...]
    status: Status
    """of the rows with a score"""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        frames = {"buckets": self.buckets.to_dicts(), "missing": self.missing.to_dicts()[0]}
        breaks = [vars(one) for one in self.breaks]
        return {**vars(self), **frames, "breaks": breaks}


def ks_table(
    label: ArrayLike,
    score: ArrayLike,
    edges: Sequence[float],
    *,
    probability: ArrayLike | None = None,
    higher_is: Direction = "riskier",
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> KsTable:
    """Count rows into frozen buckets.

    Args:
        label: (N,) 0 or 1.
        score: (N,) with None, NaN or infinity for missing.
        edges: inner edges, such as those of `bucket_edges`, on the score's own scale.
        probability: (N,) probability of bad, whose mean a bucket shows; without it mean_probability is null.
        higher_is: what a higher score means.
        confidence: share of the Wilson intervals.
        minimum: bads and goods below which the status is `insufficient`.

    Raises:
        ValueError: labels other than 0 and 1, other lengths, a probability that is not finite, or edges that are not
            strictly ascending.
    """
    inner = NumberBins(tuple(float(edge) for edge in edges)).edges
    bad = read_labels(label)
    scores = np.asarray(score, np.float64)
    if scores.shape != bad.shape:
        raise ValueError(f"expected one score a label, {bad.shape}, got an array of shape {scores.shape}")
    p = None if probability is None else read_scores(probability, len(bad))
    known = np.isfinite(scores)
    place = np.searchsorted(inner, scores, side="left")
    place[~known] = len(inner) + 1
    rows = _plain_columns(place, bad, p, len(inner) + 2, confidence)
    low, high = [None, *inner], [*inner, None]
    buckets = rows[:-1].insert_column(0, pl.Series("low", low)).insert_column(1, pl.Series("high", high))
    if higher_is == "riskier":
        buckets = buckets.reverse()
    buckets = _with_cumulative_columns(buckets)
    exact = count_risks(bad[known], read_scores(scores[known], int(known.sum()), higher_is))
    status = status_of(exact.n_bad, exact.n_good, minimum)
    is_defined = status != "undefined"
    return KsTable(
        buckets=buckets,
        missing=rows[-1:],
        rows=len(bad),
        bucket_ks=float(np.abs(buckets["ks"].to_numpy()).max()) if is_defined else None,
        exact_ks=float(np.abs(exact.gaps).max()) if is_defined else None,
        breaks=_rank_breaks(buckets["n"].to_numpy(), buckets["bads"].to_numpy()),
        status=status,
    )


def _plain_columns(
    place: NDArray[np.int64], bad: Bools, probability: Floats | None, cells: int, confidence: float
) -> pl.DataFrame:
    """What each cell says by itself: (cells,) rows, the last of missing scores."""
    n, bads = np.bincount(place, minlength=cells), np.bincount(place[bad], minlength=cells)
    low, high = wilson(bads, n, confidence)
    total = np.full(cells, np.nan) if probability is None else np.bincount(place, probability, cells)
    columns = {
        "n": n,
        "share": divide(n, len(place)),
        "bads": bads,
        "goods": n - bads,
        "bad_rate": divide(bads, n),
        "bad_rate_low": low,
        "bad_rate_high": high,
        "mean_probability": divide(total, n),
        "odds": divide(n - bads, bads),
    }
    return pl.DataFrame(columns, nan_to_null=True)


def _with_cumulative_columns(buckets: pl.DataFrame) -> pl.DataFrame:
    """Columns that read the buckets from the risky end, which comes first, and from the safe end."""
    n, bads, goods = (buckets[name].to_numpy().astype(np.float64) for name in ("n", "bads", "goods"))
    shares = {"bads": divide(bads, bads.sum()), "goods": divide(goods, goods.sum()), "rows": divide(n, n.sum())}
    from_risky = {name: np.cumsum(values) for name, values in shares.items()}
    from_safe = {name: np.cumsum(values[::-1])[::-1] for name, values in shares.items()}
    columns = {
        "lift": divide(shares["bads"], shares["rows"]),
        "capture": shares["bads"],
        **{f"{name}_from_risky": values for name, values in from_risky.items()},
        **{f"{name}_from_safe": values for name, values in from_safe.items()},
        "ks": from_risky["bads"] - from_risky["goods"],
        "cumulative_lift": divide(from_risky["bads"], from_risky["rows"]),
    }
    return buckets.hstack(pl.DataFrame(columns, nan_to_null=True))


def _rank_breaks(n: NDArray[np.int64], bads: NDArray[np.int64]) -> tuple[RankBreak, ...]:
    """Every fall of the bad rate towards the risky end, which comes first, with its p-value."""
    filled = np.flatnonzero(n)
    riskier, safer = filled[:-1], filled[1:]
    fall = bads[safer] / n[safer] - bads[riskier] / n[riskier]
    pooled = (bads[safer] + bads[riskier]) / (n[safer] + n[riskier])
    p = 2 * ndtr(-divide(fall, np.sqrt(pooled * (1 - pooled) * (1 / n[safer] + 1 / n[riskier]))))
    return tuple(RankBreak(int(riskier[i]), int(safer[i]), float(p[i])) for i in np.flatnonzero(fall > 0))


# --- lift and capture ---


@dataclass(frozen=True)
class Lift:
    """How many bads lie among the riskiest rows."""

    share: float
    """of the rows, as asked for"""
    rows: int
    """ceil(share N)"""
    lift: Metric
    """their bad rate / the bad rate of all; its interval is that of the capture, rescaled"""
    capture: Metric
    """share of all bads that lie among them"""
    ceiling: float | None
    """largest lift that these rows allow: min(N / rows, N / bads)"""


def lift_at(
    label: ArrayLike,
    score: ArrayLike,
    share: float,
    *,
    higher_is: Direction = "riskier",
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> Lift:
    """Lift and capture of the riskiest `share` of the rows.

    Of a block of ties at the boundary its bad rate counts for the rows needed, so the order of rows cannot matter.

    Args:
        label: (N,) 0 or 1.
        score: (N,) finite, on any scale.
        share: within (0, 1]; `LIFT_SHARES` are customary.
        higher_is: what a higher score means.
        confidence: share of the intervals.
        minimum: bads and goods below which the status is `insufficient`.

    Raises:
        ValueError: a share outside (0, 1], labels other than 0 and 1, scores that are not finite, other lengths.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie within (0, 1], got {share}")
    counts = count_scores(label, score, higher_is)
    n_bad, n_good = counts.n_bad, counts.n_good
    total = n_bad + n_good
    rows = math.ceil(share * total - 1e-9)  # .07 of 100 rows is 7, not the 8 that rounding makes of 7.000000000000001
    status = status_of(n_bad, n_good, minimum)
    if status == "undefined":
        nothing = undefined_metric(n_bad, n_good)
        return Lift(share, rows, nothing, nothing, None)
    captured = _bads_among_riskiest(counts, rows) / n_bad
    low, high = (float(end) for end in wilson(captured * n_bad, n_bad, confidence))
    scale, ceiling = total / rows, min(total / rows, total / n_bad)
    bounds = (low * scale, min(high * scale, ceiling))
    return Lift(
        share=share,
        rows=rows,
        lift=Metric(captured * scale, *bounds, status, n_bad, n_good, CAPTURE_INTERVAL),
        capture=Metric(captured, low, high, status, n_bad, n_good, CAPTURE_INTERVAL),
        ceiling=ceiling,
    )


def _bads_among_riskiest(counts: ScoreCounts, rows: int) -> float:
    """Bads among the `rows` riskiest rows; a part of a block of ties brings the same part of its bads."""
    bads, sizes = counts.bads[::-1], (counts.bads + counts.goods)[::-1]
    return float(np.interp(rows, np.append(0.0, np.cumsum(sizes)), np.append(0.0, np.cumsum(bads))))
