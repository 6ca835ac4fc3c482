"""AUC and Gini with DeLong's variance, alone and in pairs, in O(N log N).

DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988); placements by ranks as in Sun & Xu, IEEE Signal Processing
Letters 21 (2014). The models are taken as fixed: invalid on rows that chose between them, and blind to training seeds.
Intervals of other metrics stay out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit, ndtr

from crossrisk.metrics.base import (
    MINIMUM_OF_EACH_CLASS,
    Bools,
    Direction,
    Floats,
    Metric,
    Status,
    critical_z,
    read_labels,
    read_scores,
    status_of,
    undefined_metric,
)
from crossrisk.metrics.ranking import ScoreCounts, auc_of_counts, count_scores

DELONG, PAIRED_DELONG = "DeLong, logit scale", "paired DeLong"


def auc_metric(
    label: ArrayLike,
    score: ArrayLike,
    *,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
    higher_is: Direction = "riskier",
) -> Metric:
    """AUC with DeLong's interval on the logit scale. Arguments and errors: `crossrisk.metrics.ranking.count_scores`.

    There is no interval where DeLong has none: an AUC of exactly 0 or 1, one row in a class, or no variance.
    """
    return auc_metric_of_counts(count_scores(label, score, higher_is), confidence=confidence, minimum=minimum)


def auc_metric_of_counts(
    counts: ScoreCounts, *, confidence: float = 0.95, minimum: int = MINIMUM_OF_EACH_CLASS
) -> Metric:
    """`auc_metric` of the bads and goods at each distinct score, of which there may be billions."""
    n_bad, n_good = counts.n_bad, counts.n_good
    status = status_of(n_bad, n_good, minimum)
    if status == "undefined":
        return undefined_metric(n_bad, n_good)
    area = auc_of_counts(counts)
    of_a_bad, of_a_good = counts.placements()
    classes = ((counts.bads, of_a_bad, n_bad), (counts.goods, of_a_good, n_good))
    terms = [rows @ (placement - area) ** 2 / ((m - 1) * m) if m > 1 else np.nan for rows, placement, m in classes]
    return _on_logit_scale(area, float(sum(terms)), status, n_bad, n_good, confidence)


def gini_of_auc(auc: Metric) -> Metric:
    """Gini = 2 AUC - 1 with the interval of the AUC."""
    value, low, high = (None if x is None else 2 * x - 1 for x in (auc.value, auc.low, auc.high))
    return Metric(value, low, high, auc.status, auc.n_bad, auc.n_good, auc.interval)


def _on_logit_scale(area: float, variance: float, status: Status, n_bad: int, n_good: int, confidence: float) -> Metric:
    """logit(A) +/- z SE / [A (1 - A)], back-transformed."""
    if not (0 < area < 1 and variance > 0):
        return Metric(area, None, None, status, n_bad, n_good)
    half = critical_z(confidence) * np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) - half), expit(logit(area) + half)
    return Metric(area, float(low), float(high), status, n_bad, n_good, DELONG)


@dataclass(frozen=True)
class PairedAreas:
    """AUCs of k scores on the same rows, and how far apart they vary."""

    areas: Floats
    """(k,)"""
    variances: Floats
    """(k, k) of each AUC on the diagonal, of each difference beside it; NaN where a class has a single row"""
    n_bad: int
    n_good: int


def paired_areas(bad: Bools, risks: Sequence[Floats]) -> PairedAreas:
    """AUCs of several scores with DeLong's variances: var(V10) / m + var(V01) / n with ddof 1.

    Args:
        bad: (N,) with both classes.
        risks: k arrays (N,), higher is riskier. 8 k N bytes are held.
    """
    n_bad = int(bad.sum())
    n_good = len(bad) - n_bad
    of_bads, of_goods = np.empty((len(risks), n_bad)), np.empty((len(risks), n_good))
    for row, risk in enumerate(risks):
        of_bads[row], of_goods[row] = _placements(bad, risk)
    return PairedAreas(of_bads.mean(axis=1), mean_variances(of_bads) + mean_variances(of_goods), n_bad, n_good)


def metric_of_auc(found: PairedAreas, place: int, *, confidence: float, minimum: int) -> Metric:
    """One of the k AUCs with its interval, as `auc_metric` gives it."""
    status = status_of(found.n_bad, found.n_good, minimum)
    area, variance = float(found.areas[place]), float(found.variances[place, place])
    return _on_logit_scale(area, variance, status, found.n_bad, found.n_good, confidence)


def mean_variances(values: Floats) -> Floats:
    """Variances of k row means of (k, n) values and of their differences: (k, k), ddof 1; NaN where n = 1.

    Of the differences themselves, not V11 + V22 - 2 V12, which cancels where two scores are nearly the same.
    """
    k, n = values.shape
    variances = np.full((k, k), np.nan)
    if n < 2:
        return variances
    for i in range(k):
        variances[i, i] = values[i].var(ddof=1) / n
        for j in range(i):
            variances[i, j] = variances[j, i] = (values[i] - values[j]).var(ddof=1) / n
    return variances


def _placements(bad: Bools, risk: Floats) -> tuple[Floats, Floats]:
    """V10 of each bad (m,) and V01 of each good (n,), in the order of the rows."""
    bads, goods = risk[bad], risk[~bad]
    return _share_below(goods, bads), 1 - _share_below(bads, goods)


def _share_below(reference: Floats, values: Floats) -> Floats:
    """For each value the share of the reference below it, ties as half: (values,) in [0, 1]."""
    ordered = np.sort(reference)
    order = np.argsort(values)  # sorted queries walk through memory once
    queries = values[order]
    twice = ordered.searchsorted(queries, "left") + ordered.searchsorted(queries, "right")
    shares = np.empty(len(values))
    shares[order] = twice / (2 * len(reference))
    return shares


@dataclass(frozen=True)
class PairedTest:
    """AUC of the first score minus that of the second, on the same rows."""

    difference: float | None
    standard_error: float | None
    z: float | None
    p: float | None
    """two-sided; 1 where the two rank every pair alike; None where the test is undefined"""
    low: float | None
    high: float | None
    status: Status
    n_bad: int
    n_good: int
    interval: str | None = PAIRED_DELONG

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def paired_test(
    label: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
    higher_is: Direction = "riskier",
) -> PairedTest:
    """Test whether two scores of the same rows have the same AUC.

    Args:
        label: (N,) 0 or 1.
        first: (N,) finite scores.
        second: (N,) finite scores of the same direction; the scale may be another.
        confidence: share of the interval of the difference, first - second.
        minimum: bads and goods below which the status is `insufficient`.
        higher_is: what a higher score means.

    Raises:
        ValueError: labels other than 0 and 1, scores that are not finite, or different lengths.
    """
    bad = read_labels(label)
    risks = [read_scores(score, len(bad), higher_is) for score in (first, second)]
    n_bad = int(bad.sum())
    status = status_of(n_bad, len(bad) - n_bad, minimum)
    if status == "undefined":
        return PairedTest(None, None, None, None, None, None, status, n_bad, len(bad) - n_bad, None)
    return compare_areas(paired_areas(bad, risks), 0, 1, confidence=confidence, status=status)


def compare_areas(found: PairedAreas, first: int, second: int, *, confidence: float, status: Status) -> PairedTest:
    """z = (A1 - A2) / SE of two of the k scores; without variance p is 1 where the areas agree, else undefined."""
    difference = float(found.areas[first] - found.areas[second])
    variance = 0.0 if first == second else float(found.variances[first, second])
    counts = (status, found.n_bad, found.n_good)
    if variance > 0:
        se = float(np.sqrt(variance))
        z, half = difference / se, critical_z(confidence) * se
        return PairedTest(difference, se, z, float(2 * ndtr(-abs(z))), difference - half, difference + half, *counts)
    if variance == 0 and difference == 0:
        return PairedTest(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, *counts)
    return PairedTest(difference, None, None, None, None, None, *counts, None)
