"""Y|X shift: do features explain what a source model gets wrong in the target? Logits, labels and features in.

A score test for a variance component (Lin, Biometrika 84, 1997; weighted as the point-optimal test of King, Econometric
Reviews 6, 1987), after slope and intercept were recalibrated on the same target rows: what recalibration repairs is
`crossrisk.shift.level`. Which contender is asked, and on which rows, stays out (`tasks.diagnose`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from crossrisk.metrics import MINIMUM_OF_EACH_CLASS
from crossrisk.shift.base import Floats, check_rows, fit_line

ConceptVerdict = Literal["none seen", "small", "large", "insufficient"]

DRAWS = 2000
"""p values to about .005 at .05"""
DRAWS_AT_ONCE = 100
"""bounds memory: 100 x 200,000 rows are 80 MB"""
TYPICAL_DRIFT = 0.5
"""log odds that the test is most powerful against. Of .2, .4, .5 and .8 none stands out; 0 weights directions by their
variance, and then what correlated features share drowns the rest: of 20 features correlated .5, three reversed, 110
bads, it sees 3 portfolios in a hundred, and this one about 25."""
FEWEST_ROWS = 20
"""A column whose information comes from fewer rows than this (a level of a dozen accounts) says nothing here, and its
heavy tail drowns what others say."""
SEEN_P = 0.05
"""`none seen` above. One portfolio in twenty without shift is named for nothing; the price is that its transfer
contenders must win on rows, which they have to anyway."""
LARGE_AUC = 0.02
"""AUC lost by what the source model does not know of the target: about what separates the contenders on real splits
(docs/benchmarks.md), and what a paired test of 350 bads begins to see"""
SHOWN_FEATURES = 5
TWIN_CORRELATION = 0.99
NODES = 9
"""of the Gauss-Hermite rule behind `auc_at_stake`; 5 and 15 agree to 1e-4"""


@dataclass(frozen=True)
class Carrier:
    """A feature that explains residuals, with its sign."""

    feature: str
    z: float
    """about standard normal without shift; above 0: the more of it, the riskier than the source model says"""

    @property
    def direction(self) -> Literal["riskier", "safer"]:
        """In the target, compared with what the source model says, where the feature is higher (or present)."""
        return "riskier" if self.z > 0 else "safer"


@dataclass(frozen=True)
class ConceptShift:
    """Whether risk drivers differ in the target, by how much, and which."""

    verdict: ConceptVerdict
    statistic: float | None
    """T, a weighted mean of squared standardised scores"""
    expected: float | None
    """E0[T]: mean of T without shift; 1 for a source model without error of its own"""
    critical: float | None
    """95th percentile of T without shift"""
    p: float | None
    drift: float | None
    """standard deviation, over target rows, of the log odds that the source model misses here and not at home"""
    auc_at_stake: float | None
    """AUC that knowing this drift would add to the source model's ranking: the effect size, free of the row count"""
    auc_detectable: float | None
    """the same at the critical value: a smaller one can go unseen"""
    carriers: tuple[Carrier, ...]
    """the features with the largest |z|, at most SHOWN_FEATURES"""
    columns: int
    """features that entered"""
    n_bad: int
    n_good: int

    @property
    def misses_little(self) -> bool:
        """Whether a large difference would have been seen."""
        return self.auc_detectable is not None and self.auc_detectable < LARGE_AUC

    @property
    def ratio(self) -> float | None:
        """T / E0[T]; about 1 without shift."""
        return None if self.statistic is None or self.expected is None else self.statistic / self.expected


@dataclass(frozen=True)
class HomeError:
    """What a source model gets wrong in its own population, which is no shift."""

    information: float = math.inf
    """sum of p (1 - p) over the rows it was fitted on: its estimation error, relative to the target's information"""
    misfit: float = 0.0
    """variance of the coefficients that would mend what it misses at home beyond that: a line where the truth bends"""


EXACT = HomeError()


def concept_shift(
    x: NDArray[Any],
    raw: Floats,
    y: NDArray[Any],
    names: Sequence[str],
    *,
    seed: int,
    home: HomeError = EXACT,
    draws: int = DRAWS,
) -> ConceptShift:
    """T = sum_k s_k z_k^2 / sum_k s_k, against labels drawn from the recalibrated source model.

    z_k = v_k' x~' r / sqrt(l_k): r = y - p are the residuals of the recalibrated source model, x~ the features made
    W-orthogonal to [1, raw], so that the estimation of slope and intercept cancels to first order, and l_k, v_k the
    eigenvalues and vectors of their information x~' W x~. The weight s_k = t l_k / (1 + t l_k) is the share of z_k^2
    that coefficients N(0, t) explain, for the t of TYPICAL_DRIFT. A null draw takes the source model's own errors,
    then labels.

    Args:
        x: (n, d) encoded target rows that the source model has not seen.
        raw: (n,) its raw logits.
        y: (n,) labels.
        names: (d,) of the columns.
        seed: of the draws.
        home: `measure_home_error` on held-out source rows.
        draws: from the null distribution.

    Raises:
        ValueError: shapes do not belong together, or a label is neither 0 nor 1.
    """
    check_rows(raw, y, x)
    if len(names) != x.shape[1]:
        raise ValueError(f"expected one name for each of {x.shape[1]} columns, got {len(names)}")
    n_bad, n_good = int(y.sum()), int(len(y) - y.sum())
    score = _Score.of(x, raw, y) if min(n_bad, n_good) >= MINIMUM_OF_EACH_CLASS else None
    if score is None or not len(score.kept):
        return ConceptShift("insufficient", None, None, None, None, None, None, None, (), 0, n_bad, n_good)
    null = score.simulate(np.random.default_rng(seed), home, draws)
    expected, critical = float(null.mean()), float(np.quantile(null, 1 - SEEN_P))
    p = (1 + int((null >= score.statistic).sum())) / (draws + 1)
    drift = score.drift(score.statistic - expected)
    at_stake = auc_at_stake(score.logits, drift)
    return ConceptShift(
        verdict="none seen" if p > SEEN_P else "large" if at_stake >= LARGE_AUC else "small",
        statistic=score.statistic,
        expected=expected,
        critical=critical,
        p=p,
        drift=drift,
        auc_at_stake=at_stake,
        auc_detectable=auc_at_stake(score.logits, score.drift(critical - expected)),
        carriers=score.carriers(names),
        columns=len(score.kept),
        n_bad=n_bad,
        n_good=n_good,
    )


def measure_home_error(x: NDArray[Any], raw: Floats, y: NDArray[Any], y_fit: NDArray[Any]) -> HomeError:
    """The source model's estimation error, from the labels it was fitted on, and its misfit on held-out source rows.

    The misfit is 0 where a class has too few held-out rows to say.

    Args:
        x: (n, d) encoded source rows that the model was not fitted on.
        raw: (n,) its raw logits.
        y: (n,) their labels.
        y_fit: (m,) labels of the rows that it was fitted on.
    """
    check_rows(raw, y, x)
    information = float(len(y_fit) * y_fit.mean() * (1 - y_fit.mean())) if len(y_fit) else math.inf
    if min(int(y.sum()), int(len(y) - y.sum())) < MINIMUM_OF_EACH_CLASS:
        return HomeError(information)
    score = _Score.of(x, raw, y)
    if not len(score.kept):
        return HomeError(information)
    excess = score.statistic - 1 - score.row_information / information
    return HomeError(information, max(excess, 0.0) * score.variance_per_excess)


def auc_at_stake(logits: Floats, drift: float) -> float:
    """AUC that ranking by logit + N(0, drift^2) has over ranking by the logit alone, where the sum is the truth.

    Args:
        logits: (n,) log odds of the rows.
        drift: standard deviation of what the logits miss, independent of them; 0 or more.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    truth = logits[:, None] + drift * nodes
    p, mass = expit(truth), np.broadcast_to(weights / weights.sum(), truth.shape)
    known = _expected_auc(truth.ravel(), p.ravel(), mass.ravel())
    return max(known - _expected_auc(logits, (p * mass).sum(axis=1), np.ones(len(logits))), 0.0)


def _expected_auc(score: Floats, p: Floats, mass: Floats) -> float:
    """AUC of a score over rows of some mass that are bad with probability p, a function of the score."""
    order = np.argsort(score, kind="stable")
    bads, goods = (mass * p)[order], (mass * (1 - p))[order]
    below = np.cumsum(goods) - goods / 2  # rows of one score have one p: their order does not matter
    return float(bads @ below / (bads.sum() * goods.sum()))


@dataclass(frozen=True)
class _Score:
    """Scores of the features beside [1, raw] and their information, for the columns that carry enough of it."""

    kept: NDArray[np.int64]
    """(d',) columns of x"""
    logits: Floats
    """(n,) recalibrated"""
    u: Floats
    """(d',) x~' r"""
    information: Floats
    """(d', d') x~' W x~"""
    eigenvalues: Floats
    """(k,) of the information, without those that are 0"""
    weights: Floats
    """(k,) s_k / sum s"""
    basis: NDArray[np.float32]
    """(n, k) x~ v_k sqrt(s_k / (l_k sum s)): T is the sum of squares of its products with residuals"""
    statistic: float
    """T"""

    @classmethod
    def of(cls, x: NDArray[Any], raw: Floats, y: NDArray[Any]) -> _Score:
        logits = fit_line(raw, y).logit(raw)
        p = expit(logits)
        w = p * (1 - p)
        kept, rest = _beside_line(x.astype(np.float64), raw, w)
        u, information = rest.T @ (y - p), rest.T @ (rest * w[:, None])
        eigenvalues, vectors = np.linalg.eigh(information)
        real = eigenvalues > 1e-6 * eigenvalues.max(initial=0.0)
        eigenvalues, vectors = eigenvalues[real], vectors[:, real]
        t = TYPICAL_DRIFT**2 * w.sum() / eigenvalues.sum() if len(eigenvalues) else 0.0
        weights = t * eigenvalues / (1 + t * eigenvalues)
        weights = weights / weights.sum()
        to_scores = vectors * np.sqrt(weights / eigenvalues)
        return cls(
            kept=kept,
            logits=logits,
            u=u,
            information=information,
            eigenvalues=eigenvalues,
            weights=weights,
            basis=(rest @ to_scores).astype(np.float32),
            statistic=float(np.sum((u @ to_scores) ** 2)),
        )

    @property
    def row_information(self) -> float:
        """sum w, of the rows."""
        p = expit(self.logits)
        return float((p * (1 - p)).sum())

    @property
    def variance_per_excess(self) -> float:
        """t / (E[T] - E0[T]) where the coefficients that the source model misses are N(0, t)."""
        return float(1 / (self.weights @ self.eigenvalues))

    def drift(self, excess: float) -> float:
        """Standard deviation over rows, weighted by w, of x~ b with the b that T - E0[T] speaks for; 0 below 0."""
        variance = max(excess, 0.0) * self.variance_per_excess
        return math.sqrt(variance * float(self.eigenvalues.sum()) / self.row_information)

    def simulate(self, rng: np.random.Generator, home: HomeError, draws: int) -> Floats:
        """(draws,) values of T for labels drawn from the recalibrated model, which is wrong as it is at home."""
        p = expit(self.logits).astype(np.float32)
        estimation = self.row_information / home.information  # of z_k: variance here over variance there
        spread = np.sqrt(self.weights * (estimation + home.misfit * self.eigenvalues))
        drawn = []
        for start in range(0, draws, DRAWS_AT_ONCE):
            size = min(DRAWS_AT_ONCE, draws - start)
            labels = rng.random((size, len(p)), dtype=np.float32) < p
            scores = (labels - p) @ self.basis + spread * rng.standard_normal((size, len(spread)))
            drawn.append(np.sum(scores**2, axis=1))
        return np.concatenate(drawn)

    def carriers(self, names: Sequence[str]) -> tuple[Carrier, ...]:
        """Those with the largest |z|, each once: of twins, such as a count and the flag that it is 0, the first."""
        deviation = np.sqrt(np.diag(self.information))
        z, correlation = self.u / deviation, self.information / np.outer(deviation, deviation)
        shown: list[int] = []
        for j in np.argsort(-np.abs(z), kind="stable"):
            if len(shown) < SHOWN_FEATURES and (np.abs(correlation[j, shown]) < TWIN_CORRELATION).all():
                shown.append(int(j))
        return tuple(Carrier(names[self.kept[j]], float(z[j])) for j in shown)


def _beside_line(x: Floats, raw: Floats, w: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Columns of x (n, d) that carry information beside [1, raw], and what of them is W-orthogonal to it: (n, d')."""
    z = np.column_stack([np.ones(len(raw)), raw]) if np.ptp(raw) > 0 else np.ones((len(raw), 1))
    rest = x - z @ np.linalg.solve(z.T @ (z * w[:, None]), z.T @ (x * w[:, None]))
    of_row = w[:, None] * rest**2
    total = of_row.sum(axis=0)
    varies = total > 1e-9 * (w @ x**2)  # else a constant, or the logit itself
    rows = np.divide(total**2, (of_row**2).sum(axis=0), out=np.zeros_like(total), where=varies)
    kept = np.flatnonzero(varies & (rows >= FEWEST_ROWS))
    return kept, rest[:, kept]
