"""How well scores rank: AUC and KS. Arrays in, numbers out; no files, no plots.

Notation and statuses: `crossrisk.metrics.base`. Losses and calibration stay out (`crossrisk.metrics.comparison`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrisk.metrics.base import Floats


def auc_value(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Area under the ROC curve by midranks: P(bad scores above good) + P(tie) / 2. NaN where a class is absent.

    (sum of the bads' midranks - m (m + 1) / 2) / (m n); float64 throughout, so safe above 10 million rows.
    """
    return float(SortedScores(label, score).auc(one_weight(len(label)))[0]) if len(label) else np.nan


def ks_value(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Largest |F_bad - F_good| over the distinct scores, in [0, 1]. NaN where a class is absent."""
    return float(SortedScores(label, score).ks(one_weight(len(label)))[0]) if len(label) else np.nan


def one_weight(rows: int) -> Floats:
    """(1, rows): every row once."""
    return np.ones((1, rows), np.float64)


class SortedScores:
    """Rows sorted by score once, so that each weighted resample costs cumulative sums instead of a sort."""

    def __init__(self, label: NDArray[Any], score: NDArray[Any]) -> None:
        self.order = np.argsort(score, kind="stable")
        ordered = np.asarray(score)[self.order]
        self.bad = np.asarray(label, np.float64)[self.order]
        self.block_starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def _blocks(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of bads and goods at each distinct score: two arrays (replicates, blocks)."""
        ordered = weights[:, self.order]
        bads = np.add.reduceat(ordered * self.bad, self.block_starts, axis=1)
        return bads, np.add.reduceat(ordered, self.block_starts, axis=1) - bads

    def auc(self, weights: Floats) -> Floats:
        """AUC (replicates,) under row weights (replicates, N)."""
        bads, goods = self._blocks(weights)
        goods_below = np.cumsum(goods, axis=1) - goods
        pairs = bads.sum(axis=1) * goods.sum(axis=1)
        return divide((bads * (goods_below + 0.5 * goods)).sum(axis=1), pairs)

    def ks(self, weights: Floats) -> Floats:
        """KS (replicates,) under row weights (replicates, N)."""
        bads, goods = self._blocks(weights)
        share_bad = divide(np.cumsum(bads, axis=1), bads.sum(axis=1, keepdims=True))
        share_good = divide(np.cumsum(goods, axis=1), goods.sum(axis=1, keepdims=True))
        return np.asarray(np.abs(share_bad - share_good).max(axis=1), np.float64)


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Element by element; NaN where the denominator is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(denominator > 0, numerator / denominator, np.nan), np.float64)
