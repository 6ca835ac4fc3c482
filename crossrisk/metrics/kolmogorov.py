"""KS with sign, location and an interval that allows for its bias. Bucket tables stay out (`crossrisk.metrics.tables`).

The largest of many noisy gaps lies above the largest true gap, the more so the fewer the bads, and a resample of the
rows repeats the flattery: plain percentiles of resamples cover the true KS in some 80% of samples with 105 bads. The
interval here and what it was measured against: docs/decisions/0006-ks-interval.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from crossrisk.metrics.base import (
    MINIMUM_OF_EACH_CLASS,
    Bools,
    Direction,
    Floats,
    Metric,
    critical_z,
    status_of,
    undefined_metric,
)
from crossrisk.metrics.ranking import ScoreCounts, count_scores

MOST_CELLS = 2_000
"""Resamples are drawn in at most so many score bins; exact where the sample has no more runs of bads and goods."""
BIAS_REPLICATES = 500
"""They estimate a mean, not a tail: its error is about 2% of the interval's half-width at 105 bads, less above."""
CUBE_ROOT_FACTOR = 1 / (2 ** (2 / 3) - 1)
"""1.70: true bias / bootstrap bias at a smooth maximum.

There the bias grows with the 4/3 power of the noise (Kim & Pollard, Annals of Statistics 18, 1990). A resample has
twice the variance around the truth, so resampling adds only 2^(2/3) - 1 of the bias that the sample already has.
"""
KS_INTERVAL = "normal at the maximum, bias-corrected"
_CELLS_AT_ONCE = 4_000_000
"""replicates x bins held while resampling: 32 MB an array"""


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """KS, where it lies and which way it points."""

    metric: Metric
    """value in [0, 1], not corrected for bias; its interval is"""
    gap: float | None
    """F_good - F_bad at the maximum: positive where bads score riskier, negative where the score is upside down"""
    score: float | None
    """the score, on its own scale, at which the two distributions lie furthest apart: the riskiest of the safe side"""


def kolmogorov_smirnov(
    label: ArrayLike,
    score: ArrayLike,
    *,
    replicates: int = BIAS_REPLICATES,
    seed: int,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
    higher_is: Direction = "riskier",
) -> KolmogorovSmirnov:
    """Largest |F_bad - F_good| over the distinct scores, exact, with its interval (`ks_interval`).

    Args:
        label: (N,) 0 or 1.
        score: (N,) finite, on any scale.
        replicates: resamples that estimate the bias.
        seed: of the resampling.
        confidence: share of the interval.
        minimum: bads and goods below which the status is `insufficient`.
        higher_is: what a higher score means.

    Raises:
        ValueError: labels other than 0 and 1, scores that are not finite, or different lengths.
    """
    counts = count_scores(label, score, higher_is)
    found = ks_of_counts(counts, replicates=replicates, seed=seed, confidence=confidence, minimum=minimum)
    if found.score is None or higher_is == "riskier":
        return found
    return KolmogorovSmirnov(found.metric, found.gap, -found.score)


def ks_of_counts(
    counts: ScoreCounts, *, seed: int, confidence: float, minimum: int, replicates: int = BIAS_REPLICATES
) -> KolmogorovSmirnov:
    """`kolmogorov_smirnov` of the bads and goods at each distinct score."""
    n_bad, n_good = counts.n_bad, counts.n_good
    status = status_of(n_bad, n_good, minimum)
    if status == "undefined":
        return KolmogorovSmirnov(undefined_metric(n_bad, n_good), None, None)
    gaps = counts.gaps
    peak = int(np.abs(gaps).argmax())
    ks = float(abs(gaps[peak]))
    runs = merge_runs(counts)
    bias = bootstrap_bias(merge_cells(runs, MOST_CELLS), replicates, np.random.default_rng(seed))
    low, high = ks_interval(counts, peak, bias, confidence)
    binned = f" in {MOST_CELLS:,} score bins" if len(runs.risk) > MOST_CELLS else ""
    metric = Metric(ks, low, high, status, n_bad, n_good, None if low is None else KS_INTERVAL + binned)
    return KolmogorovSmirnov(metric, float(gaps[peak]), float(counts.risk[peak]))


def ks_interval(counts: ScoreCounts, peak: int, bias: float, confidence: float) -> tuple[float | None, float | None]:
    """[KS - 1.70 b - z SE, KS - b + z SE] within [0, 1]; nothing where SE is 0, as under perfect separation.

    SE is that of a difference of two shares at the observed maximum (Raghavachari, Annals of Statistics 1, 1973):
    sqrt(F_bad (1 - F_bad) / m + F_good (1 - F_good) / n). The bias lies between what resampling shows, b, and its
    cube-root limit, 1.70 b: each end takes the one that makes the interval longer.
    """
    m, n = counts.bads.sum(), counts.goods.sum()
    below_bad, below_good = counts.bads[: peak + 1].sum() / m, counts.goods[: peak + 1].sum() / n
    se = np.sqrt(below_bad * (1 - below_bad) / m + below_good * (1 - below_good) / n)
    if not se > 0:
        return None, None
    ks, half = abs(below_good - below_bad), critical_z(confidence) * se
    return float(max(0.0, ks - CUBE_ROOT_FACTOR * bias - half)), float(min(1.0, ks - bias + half))


def bootstrap_bias(counts: ScoreCounts, replicates: int, rng: np.random.Generator) -> float:
    """How far class-stratified resamples lift the maximum: mean of (their KS - their gap at the sample's maximum).

    The gap at a fixed score has the sample's as its mean, so this is E*[KS*] - KS with the common noise taken out.
    """
    gaps = counts.gaps
    peak = int(np.abs(gaps).argmax())
    sign = np.sign(gaps[peak])
    lifted, chunk = 0.0, max(1, _CELLS_AT_ONCE // len(gaps))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        resampled = _resampled_shares(counts.goods, size, rng)
        resampled -= _resampled_shares(counts.bads, size, rng)
        at_peak = sign * resampled[:, peak]
        lifted += float((np.abs(resampled, out=resampled).max(axis=1) - at_peak).sum())
    return lifted / replicates


def _resampled_shares(rows: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Cumulative share at each cell in `size` resamples of the rows: (size, cells)."""
    filled = np.flatnonzero(rows)
    shares = np.zeros((size, len(rows)))
    shares[:, filled] = rng.multinomial(int(rows.sum()), rows[filled] / rows.sum(), size)
    np.cumsum(shares, axis=1, out=shares)
    shares /= rows.sum()
    return shares


def merge_runs(counts: ScoreCounts) -> ScoreCounts:
    """Neighbouring scores of goods alone, or of bads alone, as one cell, at its riskiest score.

    Within such a run the gap only rises or only falls, in every resample too, so no KS changes; of n goods and m bads
    at most 2 m + 1 cells remain.
    """
    kind = np.where(counts.bads == 0, 1, np.where(counts.goods == 0, 2, 0))
    same = (kind[1:] == kind[:-1]) & (kind[1:] > 0)
    return _merge(counts, np.concatenate((~same, [True])))


def merge_cells(counts: ScoreCounts, most: int) -> ScoreCounts:
    """At most `most` cells of about equally many bads and goods, each class weighing half; as they are where fewer."""
    if len(counts.risk) <= most:
        return counts
    weight = counts.bads / counts.bads.sum() + counts.goods / counts.goods.sum()
    bins = np.floor(np.cumsum(weight) / 2 * most * (1 - 1e-12))
    return _merge(counts, np.append(bins[1:] != bins[:-1], True))


def _merge(counts: ScoreCounts, ends: Bools) -> ScoreCounts:
    """Cells that end where told: (k,) true at the last score of a cell."""
    last = np.flatnonzero(ends)
    starts = np.concatenate(([0], last[:-1] + 1))
    return ScoreCounts(counts.risk[last], np.add.reduceat(counts.bads, starts), np.add.reduceat(counts.goods, starts))
