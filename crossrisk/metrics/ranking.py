"""How well scores rank: counts at distinct scores, and the AUC and KS that follow from them. Intervals stay out
(`crossrisk.metrics.delong`, `crossrisk.metrics.kolmogorov`), tables too (`crossrisk.metrics.tables`).

Everything starts from the bads and goods at each distinct score, so ties count as ties and the order of rows cannot
matter. Counts are float64, exact to 2^53, so that products such as m n cannot overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from crossrisk.metrics.base import Bools, Direction, Floats, read_labels, read_scores


@dataclass(frozen=True)
class ScoreCounts:
    """Bads and goods at each distinct score, safest first."""

    risk: Floats
    """(k,) strictly ascending scores, turned so that higher is riskier"""
    bads: Floats
    """(k,)"""
    goods: Floats
    """(k,)"""

    @property
    def n_bad(self) -> int:
        """Number of bads, m."""
        return int(self.bads.sum())

    @property
    def n_good(self) -> int:
        """Number of goods, n."""
        return int(self.goods.sum())

    @property
    def gaps(self) -> Floats:
        """(k,) F_good - F_bad at each distinct score, in [-1, 1]: positive where bads score riskier."""
        return np.asarray(np.cumsum(self.goods) / self.goods.sum() - np.cumsum(self.bads) / self.bads.sum(), np.float64)

    def placements(self) -> tuple[Floats, Floats]:
        """What a bad and what a good at each distinct score contribute to the AUC: two arrays (k,) within [0, 1].

        V10 = share of goods below, V01 = share of bads above, ties as half (DeLong et al. 1988, eq. 4 and 5).
        """
        goods_below = np.cumsum(self.goods) - self.goods
        bads_above = self.bads.sum() - np.cumsum(self.bads)
        return (goods_below + self.goods / 2) / self.goods.sum(), (bads_above + self.bads / 2) / self.bads.sum()


def count_scores(label: ArrayLike, score: ArrayLike, higher_is: Direction = "riskier") -> ScoreCounts:
    """Bads and goods at each distinct score, in O(N log N).

    Args:
        label: (N,) 0 or 1.
        score: (N,) finite, on any scale.
        higher_is: what a higher score means.

    Raises:
        ValueError: labels other than 0 and 1, scores that are not finite, or different lengths.
    """
    bad = read_labels(label)
    return count_risks(bad, read_scores(score, len(bad), higher_is))


def count_risks(bad: Bools, risk: Floats) -> ScoreCounts:
    """`count_scores` of rows already read: (N,) bads, (N,) finite scores of which higher is riskier."""
    if len(risk) == 0:
        return ScoreCounts(risk, risk, risk)
    order = np.argsort(risk)  # rows of equal score are summed, so the sort need not be stable
    ordered = risk[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    rows = np.diff(starts, append=len(risk)).astype(np.float64)
    bads = np.add.reduceat(bad[order].astype(np.float64), starts)
    return ScoreCounts(ordered[starts], bads, rows - bads)


def auc_of_counts(counts: ScoreCounts) -> float:
    """P(bad scores riskier than good) + P(tie) / 2. NaN where a class is absent."""
    if min(counts.n_bad, counts.n_good) == 0:
        return float("nan")
    of_a_bad, _ = counts.placements()
    return float(counts.bads @ of_a_bad / counts.bads.sum())


def auc_value(label: ArrayLike, score: ArrayLike, higher_is: Direction = "riskier") -> float:
    """Area under the ROC curve, without its interval. NaN where a class is absent.

    Equal to (sum of the bads' midranks - m (m + 1) / 2) / (m n). Arguments and errors: `count_scores`.
    """
    return auc_of_counts(count_scores(label, score, higher_is))


def ks_value(label: ArrayLike, score: ArrayLike, higher_is: Direction = "riskier") -> float:
    """Largest |F_bad - F_good| over the distinct scores, in [0, 1], without its interval. NaN where a class is absent.

    Arguments and errors: `count_scores`. Upwards biased where bads are few: compare at equal numbers of bads.
    """
    counts = count_scores(label, score, higher_is)
    return float(np.abs(counts.gaps).max()) if min(counts.n_bad, counts.n_good) else float("nan")
